// The plain feed-forward: down(activation(up(x))) (Vaswani et al. 2017).
#pragma once

#include "engine/model/ffn/ffn.h"

namespace serval {

struct MlpFfnWeights {
  LinearWeight up;    // [intermediate, hidden]
  LinearWeight down;  // [hidden, intermediate]
  Buffer alphas;      // f32 [2] of xIELU; empty where it is another
};

struct MlpFfnSpec {
  using Weights = MlpFfnWeights;

  int intermediate_size = 0;
  Activation activation = Activation::kGeluTanh;
  bool bias = false;  // on up and down
  bool has_xielu = false;  // in place of the activation, by numbers of the layer (Apertus)

  void list_slots(int64_t hidden, MlpFfnWeights& weights, SlotList& slots) const;
  int64_t scratch_width() const { return intermediate_size; }
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const MlpFfnWeights& weights, const FfnInput& input) const;
};

}  // namespace serval
