// A selective state space in place of attention (Mamba; Gu and Dao 2023, section 3.4): a short convolution,
// then a recurrence whose step, input and output depend on the token. What it keeps of a sequence is a state,
// whatever the length. Positions play no part.
#pragma once

#include "engine/model/mixers/mixer.h"

namespace serval {

struct MambaWeights {
  LinearWeight input;      // [2 * channels, hidden]: what is mixed, then what gates it
  Buffer conv, conv_bias;  // f32 [taps, channels], [channels]
  LinearWeight step_low;   // [step_rank, channels]
  LinearWeight b_c;        // [2 * num_states, channels]
  NormWeights step_norm, b_norm, c_norm;
  LinearWeight step;    // [channels, step_rank]
  Buffer rates, skip;   // f32 [num_states, channels] (A, negative), [channels] (D)
  LinearWeight output;  // [hidden, channels]
};

struct MambaSpec {
  using Weights = MambaWeights;

  int channels = 0;  // the expanded width
  int step_rank = 0;
  int num_states = 16;  // of a channel
  int taps = 4;         // of the convolution
  NormSpec inner_norm;  // of the low-rank step, of b and of c
  bool has_conv_bias = true;
  bool has_bias = false;  // on input and output

  void list_slots(int64_t hidden, MambaWeights& weights, SlotList& slots) const;
  int64_t scratch_width() const;
  void shape_kv(KvLayer& kv) const;
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const MambaWeights& weights, const MixerInput& input) const;
};

}  // namespace serval
