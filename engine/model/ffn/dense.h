// The gated feed-forward: down(activation(gate(x)) * up(x)) (Shazeer 2020, GLU variants).
#pragma once

#include "engine/model/ffn/ffn.h"

namespace serval {

struct DenseFfnWeights {
  LinearWeight gate_up;  // [2 * intermediate, hidden]: gate rows, then up rows
  LinearWeight down;     // [hidden, intermediate]
};

struct DenseFfnSpec {
  using Weights = DenseFfnWeights;

  int intermediate_size = 0;
  Activation activation = Activation::kSilu;
  bool bias = false;  // on gate, up and down
  // Of the gate before it is activated (Falcon-H1).
  float gate_scale = 1;

  void list_slots(int64_t hidden, DenseFfnWeights& weights, SlotList& slots) const;
  int64_t scratch_width() const { return int64_t{3} * intermediate_size; }
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const DenseFfnWeights& weights, const FfnInput& input) const;
};

}  // namespace serval
