// A mixer and a feed-forward part as small as they can be. CTest has the compiler read this file, whole and
// with each answer left out (WITHOUT_...): a part that misses one must not compile, and the compiler must say
// which.
#include "engine/model/model_spec.h"

namespace serval::testing {

struct SmallWeights {};

struct SmallMixer {
  using Weights = SmallWeights;
#ifndef WITHOUT_list_slots
  void list_slots(int64_t, Weights&, SlotList&) const {}
#endif
#ifndef WITHOUT_scratch_width
  int64_t scratch_width() const {
    return 0;
  }
#endif
#ifndef WITHOUT_shape_kv
  void shape_kv(KvLayer&) const {}
#endif
#ifndef WITHOUT_raise_limits
  void raise_limits(StepLimits&) const {}
#endif
#ifndef WITHOUT_run
  void run(Backend&, const Weights&, const MixerInput&) const {}
#endif
};

struct SmallFfn {
  using Weights = SmallWeights;
#ifndef WITHOUT_ffn_list_slots
  void list_slots(int64_t, Weights&, SlotList&) const {}
#endif
#ifndef WITHOUT_ffn_scratch_width
  int64_t scratch_width() const {
    return 0;
  }
#endif
#ifndef WITHOUT_ffn_raise_limits
  void raise_limits(StepLimits&) const {}
#endif
#ifndef WITHOUT_ffn_run
  void run(Backend&, const Weights&, const FfnInput&) const {}
#endif
};

using Mixers = OneMixerOf<GqaSpec, SmallMixer>;
using Ffns = OneFfnOf<DenseFfnSpec, SmallFfn>;
static_assert(std::variant_size_v<Mixers> == 2 && std::variant_size_v<Ffns> == 2);

}  // namespace serval::testing
