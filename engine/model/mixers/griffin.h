// The recurrent block of Griffin in place of attention (De et al. 2024, section 2.3): a short convolution and a scan of
// real-gated linear units, whose gates see a block of channels each, beside a branch that gates what comes out. What it
// keeps of a sequence is a state, whatever the length. Positions play no part.
#pragma once

#include <vector>

#include "engine/model/mixers/mixer.h"

namespace serval {

struct GriffinWeights {
  LinearWeight mixed, gate;  // [width, hidden]
  Buffer conv, conv_bias;    // f32 [taps, width], [width]
  std::vector<LinearWeight> in_gate, decay_gate;  // of each head [width / heads, width / heads]
  Buffer in_bias, decay_bias, rate;               // f32 [width]; the rate negative
  LinearWeight output;                            // [hidden, width]
};

struct GriffinSpec {
  using Weights = GriffinWeights;

  int width = 0;
  int num_heads = 0;  // blocks of channels that gates see
  int taps = 4;
  Activation activation = Activation::kGeluTanh;  // of the branch that gates

  void list_slots(int64_t hidden, GriffinWeights& weights, SlotList& slots) const;
  int64_t scratch_width() const;
  void shape_kv(KvLayer& kv) const;
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const GriffinWeights& weights, const MixerInput& input) const;
};

}  // namespace serval
