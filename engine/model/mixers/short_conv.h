// A short convolution, gated before and behind, in place of attention (LFM2; Liquid AI 2025): what it keeps of a
// sequence are the last inputs. Positions play no part.
#pragma once

#include "engine/model/mixers/mixer.h"

namespace serval {

struct ShortConvWeights {
  LinearWeight input;      // [3 * channels, hidden]: what gates the input, what gates the output, the input
  Buffer conv, conv_bias;  // f32 [taps, channels], [channels]
  LinearWeight output;     // [hidden, channels]
};

struct ShortConvSpec {
  using Weights = ShortConvWeights;

  int channels = 0;
  int taps = 3;
  bool has_bias = false;  // on all of it

  void list_slots(int64_t hidden, ShortConvWeights& weights, SlotList& slots) const;
  int64_t scratch_width() const;
  void shape_kv(KvLayer& kv) const;
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const ShortConvWeights& weights, const MixerInput& input) const;
};

}  // namespace serval
