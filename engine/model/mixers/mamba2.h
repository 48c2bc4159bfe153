// Mamba 2 in place of attention (Dao and Gu 2024): a short convolution, then per head a recurrence over a matrix whose
// decay is one number, keys and queries (B and C) shared by groups of heads; a gate and a norm behind. What it
// keeps of a sequence is a state, whatever the length. Positions play no part.
#pragma once

#include <array>
#include <limits>

#include "engine/model/mixers/mixer.h"

namespace serval {

struct Mamba2Weights {
  LinearWeight input;             // [2 * inner + 2 * groups * states + heads, hidden]: gate, x, B, C, dt
  Buffer conv, conv_bias;         // f32 [taps, x | B | C], [the same]
  Buffer step_bias, rates, skip;  // f32 [heads]: of dt, A (negative), D
  NormWeights norm;               // [inner]
  LinearWeight output;            // [hidden, inner]
};

struct Mamba2Spec {
  using Weights = Mamba2Weights;

  int num_heads = 0;
  int head_dim = 0;
  int num_groups = 1;
  int num_states = 0;
  int taps = 4;
  bool has_conv_bias = true;
  bool has_input_bias = false, has_output_bias = false;
  float least_step = 0, most_step = std::numeric_limits<float>::infinity();
  // Over each group of what the scan gave, behind the gate or before it; none: the gate alone.
  NormSpec norm;
  bool has_norm_before_gate = false;
  // Of the projection's pieces: gate, x, B, C, dt (Falcon-H1).
  std::array<float, 5> input_scales = {1, 1, 1, 1, 1};

  int64_t inner() const { return int64_t{num_heads} * head_dim; }
  int64_t group_states() const { return int64_t{num_groups} * num_states; }
  int64_t conv_channels() const { return inner() + 2 * group_states(); }
  int64_t input_size() const { return inner() + conv_channels() + num_heads; }

  void list_slots(int64_t hidden, Mamba2Weights& weights, SlotList& slots) const;
  int64_t scratch_width() const;
  void shape_kv(KvLayer& kv) const;
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const Mamba2Weights& weights, const MixerInput& input) const;

 private:
  void gate_and_norm(Backend& backend, const Mamba2Weights& w, const Tensor& gate, const Tensor& mixed) const;
};

}  // namespace serval
