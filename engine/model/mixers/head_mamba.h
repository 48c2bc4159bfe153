// A selective state space (mixers/mamba.h) whose channels are cut into heads, each with matrices of its own for its steps,
// inputs and outputs (Zamba; Glorioso et al. 2024, section 2).
#pragma once

#include <vector>

#include "engine/model/mixers/mixer.h"

namespace serval {

struct HeadMambaWeights {
  LinearWeight input;             // [2 * channels, hidden]: what is mixed, then what gates it
  Buffer conv, conv_bias;         // f32 [taps, channels], [channels]
  std::vector<LinearWeight> low;  // of each head [low_size(), head_dim()]: its step's low rank, b, c
  std::vector<LinearWeight> step;  // of each head [head_dim(), step_rank], with a bias
  Buffer rates, skip;             // f32 [num_states, channels] (A, negative), [channels] (D)
  LinearWeight output;            // [hidden, channels]
};

struct HeadMambaSpec {
  using Weights = HeadMambaWeights;

  int channels = 0;  // the expanded width
  int num_heads = 0;
  int step_rank = 0;
  int num_states = 16;  // of a channel
  int taps = 4;         // of the convolution
  bool has_conv_bias = true;
  bool has_bias = false;  // on input and output

  int head_dim() const { return channels / num_heads; }
  int low_size() const { return step_rank + 2 * num_states; }

  void list_slots(int64_t hidden, HeadMambaWeights& weights, SlotList& slots) const;
  int64_t scratch_width() const;
  void shape_kv(KvLayer& kv) const;
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const HeadMambaWeights& weights, const MixerInput& input) const;
};

}  // namespace serval
