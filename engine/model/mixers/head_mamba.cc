#include "engine/model/mixers/head_mamba.h"

#include <algorithm>

#include "engine/model/mixers/state_parts.h"
#include "kernels/base/check.h"

namespace serval {

void HeadMambaSpec::list_slots(int64_t hidden, HeadMambaWeights& w, SlotList& slots) const {
  // A row of what is mixed and one of what gates it take turns.
  slots.reordered_linear(w.input, "mixer.in_proj", {{0, channels, 2}, {1, channels, 2}}, hidden, has_bias);
  slots.vector(w.conv, "mixer.conv1d.weight", {channels, 1, taps}, channels_last);
  if (has_conv_bias) slots.vector(w.conv_bias, "mixer.conv1d.bias", {channels});
  slots.head_linears(w.low, "mixer.x_proj_weight", num_heads, low_size(), head_dim());
  slots.head_linears(w.step, "mixer.dt_proj_weight", num_heads, head_dim(), step_rank, "mixer.dt_proj_bias");
  slots.vector(w.rates, "mixer.A_log", {num_heads, head_dim(), num_states},
               [all = channels, states = num_states](std::vector<float>& values, const std::vector<int64_t>& shape) {
                 rates_from_log(values, shape);
                 channels_last(values, {all, states});
               });
  slots.vector(w.skip, "mixer.D", {num_heads, head_dim()});
  slots.linear(w.output, {{"mixer.out_proj", hidden}}, channels, has_bias);
}

// Steps in f32, as wide as two elements; input and gate; the convolved; of each head its low rank, b and c; the mixed.
int64_t HeadMambaSpec::scratch_width() const {
  return ScratchCutter::width({2 * channels, 2 * channels, channels, num_heads * low_size(), channels});
}

void HeadMambaSpec::shape_kv(KvLayer& kv) const {
  kv.dtype = DType::kF32;
  kv.conv_floats = int64_t{taps - 1} * channels;
  kv.scan_floats = int64_t{num_states} * channels;
}

void HeadMambaSpec::raise_limits(StepLimits& limits) const {
  limits.need(RareOp::kHeadLinear);
  limits.need(RareOp::kHeadScan);
  limits.max_k = std::max<int64_t>({limits.max_k, channels, step_rank});
}

void HeadMambaSpec::run(Backend& backend, const HeadMambaWeights& w, const MixerInput& in) const {
  const int64_t rows = in.h.dim(0), dim = head_dim(), low_width = low_size();
  SERVAL_CHECK(in.group.attention.num_rows == rows, in.group.attention.num_rows, rows);
  const DType type = in.scratch.dtype;
  ScratchCutter scratch(in.scratch, rows);
  const Tensor steps = scratch.cut_f32(channels), input = scratch.cut(2 * channels), convolved = scratch.cut(channels),
               low = scratch.cut(num_heads * low_width), mixed = scratch.cut(channels);
  const auto as_heads = [&](const Tensor& x, int64_t width) { return Tensor(x.data, x.dtype, {rows, num_heads, width}); };

  backend.linear(in.h, w.input, input);
  backend.causal_conv({.x = Tensor(input.data, type, {rows, channels}),
                       .in_gate = {},
                       .out_gate = {},
                       .x_stride = 2 * int64_t{channels},
                       .weight = vector_of(w.conv, {taps, channels}),
                       .bias = vector_of(w.conv_bias, {channels}),
                       .kv = in.kv,
                       .batch = &in.group.attention,
                       .out = convolved});
  backend.head_linear({.x = as_heads(convolved, dim),
                       .x_row_stride = channels,
                       .x_head_stride = dim,
                       .heads = w.low,
                       .out = as_heads(low, low_width),
                       .out_row_stride = num_heads * low_width,
                       .out_head_stride = low_width});
  backend.head_linear({.x = as_heads(low, step_rank),
                       .x_row_stride = num_heads * low_width,
                       .x_head_stride = low_width,
                       .heads = w.step,
                       .out = as_heads(steps, dim),
                       .out_row_stride = channels,
                       .out_head_stride = dim});
  backend.selective_scan({.u = convolved,
                          .dt = steps,
                          .b = Tensor(low.at(step_rank), type, {rows, num_states}),
                          .c = Tensor(low.at(step_rank + num_states), type, {rows, num_states}),
                          .bc_stride = num_heads * low_width,
                          .heads = num_heads,
                          .bc_head_stride = low_width,
                          .gate = Tensor(input.at(channels), type, {rows, channels}),
                          .gate_stride = 2 * int64_t{channels},
                          .a = vector_of(w.rates, {num_states, channels}),
                          .d = vector_of(w.skip, {channels}),
                          .kv = in.kv,
                          .batch = &in.group.attention,
                          .out = mixed});
  backend.linear(mixed, w.output, in.out);
}

}  // namespace serval
