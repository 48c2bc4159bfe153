// No mixer: the layer is its feed-forward part alone (Nemotron-H).
#pragma once

#include "engine/model/mixers/mixer.h"

namespace serval {

struct NoMixerWeights {};

struct NoMixerSpec {
  using Weights = NoMixerWeights;

  void list_slots(int64_t /*hidden*/, NoMixerWeights&, SlotList&) const {}
  int64_t scratch_width() const { return 0; }
  void shape_kv(KvLayer&) const {}
  void raise_limits(StepLimits&) const {}
  void run(Backend&, const NoMixerWeights&, const MixerInput&) const {}
};

// Whether the layer has the part, and the norms around it.
template <class Part>
bool has_mixer(const Part&) {
  return true;
}
inline bool has_mixer(const NoMixerSpec&) {
  return false;
}

}  // namespace serval
