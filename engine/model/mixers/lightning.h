// Lightning attention in place of attention (Qin et al. 2024; MiniMax-01, section 2.2): activated queries, keys and
// values, and per head a matrix that takes in their products and decays by a number that is the same at all positions;
// a norm over all heads and a gate behind. What it keeps of a sequence is a state, whatever the length. Positions play
// no part.
#pragma once

#include <vector>

#include "engine/model/mixers/mixer.h"

namespace serval {

struct LightningWeights {
  LinearWeight qkv;     // [3 * width, hidden]: q, k, v
  LinearWeight gate;    // [width, hidden]
  Buffer decays;        // f32 [heads]
  NormWeights norm;     // [width]
  LinearWeight output;  // [hidden, width]
};

struct LightningSpec {
  using Weights = LightningWeights;

  int num_heads = 0;
  int head_dim = 0;
  Activation activation = Activation::kSilu;
  std::vector<float> decays;  // of each head, what its matrix is multiplied by at each position
  NormSpec norm;              // of what all heads' scans gave

  int64_t width() const { return int64_t{num_heads} * head_dim; }

  void list_slots(int64_t hidden, LightningWeights& weights, SlotList& slots) const;
  int64_t scratch_width() const;
  void shape_kv(KvLayer& kv) const;
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const LightningWeights& weights, const MixerInput& input) const;
};

}  // namespace serval
