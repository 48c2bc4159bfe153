// A gated delta net in place of attention (Yang et al. 2025): a short convolution over queries, keys and values, then
// per head a matrix that decays by one number a row and takes in what it did not yet say of a key; a norm of each
// head and a gate behind. What it keeps of a sequence is a state, whatever the length. Positions play no part.
#pragma once

#include "engine/model/mixers/mixer.h"

namespace serval {

struct DeltaNetWeights {
  LinearWeight input;       // [2 * key_width + 2 * value_width + 2 * heads, hidden]: q, k, v, gate, beta, step
  Buffer conv;              // f32 [taps, q | k | v]
  Buffer step_bias, rates;  // f32 [heads], the rates negative
  Buffer unit;              // f32 [key_dim]: what makes an RMS norm one of length
  NormWeights norm;         // [value_dim]
  LinearWeight output;      // [hidden, value_width]
};

struct DeltaNetSpec {
  using Weights = DeltaNetWeights;

  int num_key_heads = 0;
  int num_heads = 0;  // of values, a multiple of them
  int key_dim = 0, value_dim = 0;
  int taps = 4;
  float beta_scale = 1;  // 2: a matrix may turn what it held of a key into its opposite
  NormSpec norm;         // of each head of what the scan gave, before the gate
  // The checkpoint has q, k, v and gate of a key head together, one key head behind the other, and so beta and step
  // (Qwen3-Next); else each has its rows together.
  bool has_rows_by_key_head = false;
  bool has_conv_each = false;  // q, k and v have a tensor each for their convolution

  int64_t key_width() const { return int64_t{num_key_heads} * key_dim; }
  int64_t value_width() const { return int64_t{num_heads} * value_dim; }
  int64_t conv_channels() const { return 2 * key_width() + value_width(); }
  int64_t input_size() const { return conv_channels() + value_width() + 2 * int64_t{num_heads}; }

  void list_slots(int64_t hidden, DeltaNetWeights& weights, SlotList& slots) const;
  int64_t scratch_width() const;
  void shape_kv(KvLayer& kv) const;
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const DeltaNetWeights& weights, const MixerInput& input) const;
};

}  // namespace serval
