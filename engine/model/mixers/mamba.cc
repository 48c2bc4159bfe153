#include "engine/model/mixers/mamba.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/check.h"

namespace serval {
namespace {

// [channels, ..., n] as [n, channels]: neighbouring channels are computed side by side.
void transpose(std::vector<float>& values, const std::vector<int64_t>& shape) {
  const int64_t channels = shape.front(), n = shape.back();
  const std::vector<float> stored = values;
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t i = 0; i < n; ++i) values[i * channels + c] = stored[c * n + i];
}

// The checkpoint has the logarithm of how fast a state decays.
void rates_from_log(std::vector<float>& values, const std::vector<int64_t>& shape) {
  for (float& value : values) value = -std::exp(value);
  transpose(values, shape);
}

// The scratch's pieces begin where a vector may.
int64_t aligned(int64_t elements) {
  return (elements + 7) / 8 * 8;
}

}  // namespace

void MambaSpec::list_slots(int64_t hidden, MambaWeights& w, SlotList& slots) const {
  slots.linear(w.input, {{"mixer.in_proj", 2 * int64_t{channels}}}, hidden, has_bias);
  slots.vector(w.conv, "mixer.conv1d.weight", {channels, 1, kConvTaps}, transpose);
  if (has_conv_bias) slots.vector(w.conv_bias, "mixer.conv1d.bias", {channels});
  // One matrix of the checkpoint, whose parts go different ways.
  slots.some_rows(w.step_low, "mixer.x_proj", {.first = 0, .count = step_rank}, step_rank + 2 * kScanStates,
                  channels);
  slots.some_rows(w.b_c, "mixer.x_proj", {.first = step_rank, .count = 2 * kScanStates},
                  step_rank + 2 * kScanStates, channels);
  slots.linear(w.step, {{"mixer.dt_proj", channels}}, step_rank, true);
  slots.vector(w.rates, "mixer.A_log", {channels, kScanStates}, rates_from_log);
  slots.vector(w.skip, "mixer.D", {channels});
  slots.linear(w.output, {{"mixer.out_proj", hidden}}, channels, has_bias);
}

// Steps in f32, as wide as two elements; input and gate; the convolved; the low-rank step; b and c; the
// mixed.
int64_t MambaSpec::scratch_width() const {
  return 6 * aligned(channels) + aligned(step_rank) + 2 * kScanStates;
}

void MambaSpec::shape_kv(KvLayer& kv) const {
  kv.dtype = DType::kF32;
  kv.state_channels = channels;
}

void MambaSpec::raise_limits(StepLimits& limits) const {
  limits.max_k = std::max<int64_t>(limits.max_k, channels);
}

void MambaSpec::run(Backend& backend, const MambaWeights& w, const MixerInput& in) const {
  const int64_t rows = in.h.dim(0);
  SERVAL_CHECK(in.group.attention.num_rows == rows, in.group.attention.num_rows, rows);
  const DType type = in.scratch.dtype;
  int64_t used = 0;  // elements of the scratch
  const auto cut = [&](int64_t width, DType of, int64_t elements) {
    const Tensor piece(in.scratch.at(used), of, {rows, width});
    used += rows * aligned(elements);
    return piece;
  };
  const Tensor steps = cut(channels, DType::kF32, 2 * int64_t{channels});
  const Tensor input = cut(2 * int64_t{channels}, type, 2 * int64_t{channels});
  const Tensor convolved = cut(channels, type, channels), step_low = cut(step_rank, type, step_rank);
  const Tensor b_c = cut(2 * kScanStates, type, 2 * kScanStates), mixed = cut(channels, type, channels);

  const auto vector = [](const Buffer& of, std::initializer_list<int64_t> shape) {
    return of.bytes > 0 ? Tensor(of.data(), DType::kF32, shape) : Tensor();
  };
  backend.linear(in.h, w.input, input);
  backend.causal_conv({.x = Tensor(input.data, type, {rows, channels}),
                       .x_stride = 2 * int64_t{channels},
                       .weight = vector(w.conv, {kConvTaps, channels}),
                       .bias = vector(w.conv_bias, {channels}),
                       .kv = in.kv,
                       .batch = &in.group.attention,
                       .out = convolved});
  backend.linear(convolved, w.step_low, step_low);
  backend.linear(step_low, w.step, steps);
  backend.linear(convolved, w.b_c, b_c);
  backend.selective_scan({.u = convolved,
                          .dt = steps,
                          .b = Tensor(b_c.data, type, {rows, kScanStates}),
                          .c = Tensor(b_c.at(kScanStates), type, {rows, kScanStates}),
                          .bc_stride = 2 * kScanStates,
                          .gate = Tensor(input.at(channels), type, {rows, channels}),
                          .gate_stride = 2 * int64_t{channels},
                          .a = vector(w.rates, {kScanStates, channels}),
                          .d = vector(w.skip, {channels}),
                          .kv = in.kv,
                          .batch = &in.group.attention,
                          .out = mixed});
  backend.linear(mixed, w.output, in.out);
}

}  // namespace serval
