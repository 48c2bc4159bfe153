// Linear attention whose matrices fade, in place of attention: queries, keys and values, and per head a matrix that takes in
// products of keys and values and decays; a norm of each head and a gate behind. Gated linear attention (Yang et al. 2024,
// section 4): by a number for each key, which comes out of a low rank. Retention (Sun et al. 2023, section 2): by a number
// for each head, the same at all positions, over rotated queries and keys. What it keeps of a sequence is a state,
// whatever the length.
#pragma once

#include <vector>

#include "engine/model/mixers/mixer.h"

namespace serval {

struct GlaWeights {
  LinearWeight input;     // [2 * key_width + value_width (+ value_width), hidden]: q, k, v, gate
  LinearWeight step_low;  // [gate_rank, hidden]
  LinearWeight step;      // [key_width, gate_rank]
  Buffer rates;           // f32 [heads], negative: of the logarithm of a decay
  Buffer decays;          // f32 [heads], where there is no low rank
  NormWeights norm;       // [value_dim]
  LinearWeight output;    // [hidden, value_width]
};

struct GlaSpec {
  using Weights = GlaWeights;

  int num_heads = 0;
  int key_dim = 0, value_dim = 0;
  // Of what decays come out of: exp(log(sigmoid(step)) / normaliser), and not below exp(least_log_decay).
  int gate_rank = 0;
  float normaliser = 16, least_log_decay = 0;  // 0: no bound
  std::vector<float> decays = {};              // of each head, without a low rank
  NormSpec norm;                               // of each head of what the scan gave, before the gate
  bool has_gate = true;

  int64_t key_width() const { return int64_t{num_heads} * key_dim; }
  int64_t value_width() const { return int64_t{num_heads} * value_dim; }
  int64_t input_size() const { return 2 * key_width() + (has_gate ? 2 : 1) * value_width(); }

  void list_slots(int64_t hidden, GlaWeights& weights, SlotList& slots) const;
  int64_t scratch_width() const;
  void shape_kv(KvLayer& kv) const;
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const GlaWeights& weights, const MixerInput& input) const;
};

}  // namespace serval
