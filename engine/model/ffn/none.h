// No feed-forward part: the layer is its mixer alone (Mamba).
#pragma once

#include "engine/model/ffn/ffn.h"

namespace serval {

struct NoFfnWeights {};

struct NoFfnSpec {
  using Weights = NoFfnWeights;

  void list_slots(int64_t /*hidden*/, NoFfnWeights&, SlotList&) const {}
  int64_t scratch_width() const { return 0; }
  void raise_limits(StepLimits&) const {}
  void run(Backend&, const NoFfnWeights&, const FfnInput&) const {}
};

// Whether the layer has the part, and the norms around it.
template <class Part>
bool is_there(const Part&) {
  return true;
}
inline bool is_there(const NoFfnSpec&) {
  return false;
}

}  // namespace serval
