#include "engine/model/mixers/mamba.h"

#include <algorithm>

#include "engine/model/mixers/state_parts.h"
#include "kernels/base/check.h"

namespace serval {

void MambaSpec::list_slots(int64_t hidden, MambaWeights& w, SlotList& slots) const {
  slots.linear(w.input, {{"mixer.in_proj", 2 * int64_t{channels}}}, hidden, has_bias);
  slots.vector(w.conv, "mixer.conv1d.weight", {channels, 1, taps}, channels_last);
  if (has_conv_bias) slots.vector(w.conv_bias, "mixer.conv1d.bias", {channels});
  // One matrix of the checkpoint, whose parts go different ways.
  const int64_t all = step_rank + 2 * num_states;
  slots.some_rows(w.step_low, "mixer.x_proj", {{.first = 0, .count = step_rank}}, all, channels);
  slots.some_rows(w.b_c, "mixer.x_proj", {{.first = step_rank, .count = 2 * num_states}}, all, channels);
  slots.norm(w.step_norm, "mixer.dt_layernorm", step_rank, inner_norm);
  slots.norm(w.b_norm, "mixer.b_layernorm", num_states, inner_norm);
  slots.norm(w.c_norm, "mixer.c_layernorm", num_states, inner_norm);
  slots.linear(w.step, {{"mixer.dt_proj", channels}}, step_rank, true);
  slots.vector(w.rates, "mixer.A_log", {channels, num_states},
               [](std::vector<float>& values, const std::vector<int64_t>& shape) {
                 rates_from_log(values, shape);
                 channels_last(values, shape);
               });
  slots.vector(w.skip, "mixer.D", {channels});
  slots.linear(w.output, {{"mixer.out_proj", hidden}}, channels, has_bias);
}

// Steps in f32, as wide as two elements; input and gate; the convolved; the low-rank step; b and c; the
// mixed.
int64_t MambaSpec::scratch_width() const {
  return ScratchCutter::width({2 * channels, 2 * channels, channels, step_rank, 2 * num_states, channels});
}

void MambaSpec::shape_kv(KvLayer& kv) const {
  kv.dtype = DType::kF32;
  kv.conv_floats = int64_t{taps - 1} * channels;
  kv.scan_floats = int64_t{num_states} * channels;
}

void MambaSpec::raise_limits(StepLimits& limits) const {
  limits.max_k = std::max<int64_t>(limits.max_k, channels);
}

void MambaSpec::run(Backend& backend, const MambaWeights& w, const MixerInput& in) const {
  const int64_t rows = in.h.dim(0);
  SERVAL_CHECK(in.group.attention.num_rows == rows, in.group.attention.num_rows, rows);
  const DType type = in.scratch.dtype;
  ScratchCutter scratch(in.scratch, rows);
  const Tensor steps = scratch.cut_f32(channels), input = scratch.cut(2 * channels);
  const Tensor convolved = scratch.cut(channels), step_low = scratch.cut(step_rank);
  const Tensor b_c = scratch.cut(2 * num_states), mixed = scratch.cut(channels);
  const Tensor b(b_c.data, type, {rows, num_states}), c(b_c.at(num_states), type, {rows, num_states});

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
  backend.linear(convolved, w.step_low, step_low);
  backend.linear(convolved, w.b_c, b_c);
  if (inner_norm.is_there()) {
    norm_heads(backend, inner_norm, w.step_norm, step_low, 1, step_rank);
    norm_heads(backend, inner_norm, w.b_norm, b, 1, 2 * num_states);
    norm_heads(backend, inner_norm, w.c_norm, c, 1, 2 * num_states);
  }
  backend.linear(step_low, w.step, steps);
  backend.selective_scan({.u = convolved,
                          .dt = steps,
                          .b = b,
                          .c = c,
                          .bc_stride = 2 * num_states,
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
