#include "engine/model/mixers/short_conv.h"

#include <algorithm>

#include "engine/model/mixers/state_parts.h"

namespace serval {

void ShortConvSpec::list_slots(int64_t hidden, ShortConvWeights& w, SlotList& slots) const {
  slots.linear(w.input, {{"conv.in_proj", 3 * int64_t{channels}}}, hidden, has_bias);
  slots.vector(w.conv, "conv.conv.weight", {channels, 1, taps}, channels_last);
  if (has_bias) slots.vector(w.conv_bias, "conv.conv.bias", {channels});
  slots.linear(w.output, {{"conv.out_proj", hidden}}, channels, has_bias);
}

int64_t ShortConvSpec::scratch_width() const {
  return ScratchCutter::width({3 * channels, channels});
}

void ShortConvSpec::shape_kv(KvLayer& kv) const {
  kv.dtype = DType::kF32;
  kv.conv_floats = int64_t{taps - 1} * channels;
}

void ShortConvSpec::raise_limits(StepLimits& limits) const {
  limits.max_k = std::max<int64_t>(limits.max_k, channels);
}

void ShortConvSpec::run(Backend& backend, const ShortConvWeights& w, const MixerInput& in) const {
  const int64_t rows = in.h.dim(0);
  ScratchCutter scratch(in.scratch, rows);
  const Tensor input = scratch.cut(3 * channels), mixed = scratch.cut(channels);
  const auto piece = [&](int i) {
    return Tensor(input.at(i * int64_t{channels}), input.dtype, {rows, channels});
  };
  backend.linear(in.h, w.input, input);
  backend.causal_conv({.x = piece(2),
                       .in_gate = piece(0),
                       .out_gate = piece(1),
                       .x_stride = 3 * int64_t{channels},
                       .weight = vector_of(w.conv, {taps, channels}),
                       .bias = vector_of(w.conv_bias, {channels}),
                       .has_silu = false,
                       .kv = in.kv,
                       .batch = &in.group.attention,
                       .out = mixed});
  backend.linear(mixed, w.output, in.out);
}

}  // namespace serval
