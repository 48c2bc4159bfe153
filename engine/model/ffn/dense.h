// The gated feed-forward: down(activation(gate(x)) * up(x)) (Shazeer 2020, GLU variants).
#pragma once

#include <optional>

#include "engine/model/ffn/ffn.h"

namespace serval {

struct DenseFfnWeights {
  LinearWeight gate_up;  // [2 * intermediate, hidden]: gate rows, then up rows
  LinearWeight down;     // [hidden, intermediate]
};

struct DenseFfnSpec {
  using Weights = DenseFfnWeights;

  int intermediate_size = 0;
  int stored_size = 0;  // of the checkpoint, whose first neurons alone are used; 0: all are
  Activation activation = Activation::kSilu;
  bool bias = false;  // on gate, up and down
  // Of the gate what lies above so many deviations from the row's mean, less that limit (Gemma 3n).
  std::optional<float> gate_cut;
  float gate_limit = 0;  // > 0: gate and up are clamped, and up_offset is added to up (MiniMax M3)
  float up_offset = 0;
  // Of the gate before it is activated (Falcon-H1).
  float gate_scale = 1;

  void list_slots(int64_t hidden, DenseFfnWeights& weights, SlotList& slots) const;
  int64_t scratch_width() const { return int64_t{3} * intermediate_size; }
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const DenseFfnWeights& weights, const FfnInput& input) const;
};

}  // namespace serval
