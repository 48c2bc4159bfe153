// Kimi's delta attention in place of attention (Kimi Team 2025): a gated delta net whose matrices decay by a number for
// each key, which comes out of a low rank, as the gate behind does. What it keeps of a sequence is a state, whatever
// the length. Positions play no part.
#pragma once

#include "engine/model/mixers/mixer.h"

namespace serval {

struct KdaWeights {
  LinearWeight input;       // [3 * width + heads, hidden]: q, k, v, beta
  LinearWeight step_low;    // [step_rank, hidden]; empty where the step is projected at once
  LinearWeight step;        // [width, step_rank or hidden]
  LinearWeight gate_low;    // [gate_rank, hidden]; likewise
  LinearWeight gate;        // [width, gate_rank or hidden]
  Buffer conv;              // f32 [taps, q | k | v]
  Buffer step_bias, rates;  // f32 [width], [heads], the rates negative
  Buffer unit;              // f32 [head_dim]: what makes an RMS norm one of length
  NormWeights norm;         // [head_dim]
  LinearWeight output;      // [hidden, width]
};

struct KdaSpec {
  using Weights = KdaWeights;

  int num_heads = 0;
  int head_dim = 0;  // of keys and of values
  int step_rank = 0, gate_rank = 0;  // 0: no low rank
  bool has_flat_rates = false;       // the checkpoint has them as [heads]; else as [1, 1, heads, 1]
  int taps = 4;
  // Of the logarithm of a decay: it is that times the sigmoid of a step times its rate; 0: it is not bounded.
  float lower_bound = 0;
  NormSpec norm;  // of each head of what the scan gave, before the gate

  int64_t width() const { return int64_t{num_heads} * head_dim; }
  int64_t input_size() const { return 3 * width() + num_heads; }

  void list_slots(int64_t hidden, KdaWeights& weights, SlotList& slots) const;
  int64_t scratch_width() const;
  void shape_kv(KvLayer& kv) const;
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const KdaWeights& weights, const MixerInput& input) const;
};

}  // namespace serval
