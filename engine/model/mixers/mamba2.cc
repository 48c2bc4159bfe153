#include "engine/model/mixers/mamba2.h"

#include <algorithm>

#include "engine/model/mixers/state_parts.h"

namespace serval {

void Mamba2Spec::list_slots(int64_t hidden, Mamba2Weights& w, SlotList& slots) const {
  slots.linear(w.input, {{"mixer.in_proj", input_size()}}, hidden, has_input_bias);
  // The projection is scaled as the gate is; the rest of a piece's scale is the convolution's, which is linear.
  const auto scaled = [spec = *this](std::vector<float>& values, const std::vector<int64_t>& shape) {
    const int64_t taps = shape.back(), inner = spec.inner(), states = spec.group_states();
    for (int64_t c = 0; c < shape.front(); ++c) {
      const int piece = c < inner ? 1 : c < inner + states ? 2 : 3;
      for (int64_t t = 0; t < taps; ++t) values[c * taps + t] *= spec.input_scales[piece] / spec.input_scales[0];
    }
    channels_last(values, shape);
  };
  slots.vector(w.conv, "mixer.conv1d.weight", {conv_channels(), 1, taps}, scaled);
  if (has_conv_bias) slots.vector(w.conv_bias, "mixer.conv1d.bias", {conv_channels()});
  slots.vector(w.step_bias, "mixer.dt_bias", {num_heads});
  slots.vector(w.rates, "mixer.A_log", {num_heads}, rates_from_log);
  slots.vector(w.skip, "mixer.D", {num_heads});
  slots.norm(w.norm, "mixer.norm", inner(), norm);
  slots.linear(w.output, {{"mixer.out_proj", hidden}}, inner(), has_output_bias);
}

// The projection; the convolved; decays and steps in f32, as wide as two elements; the mixed.
int64_t Mamba2Spec::scratch_width() const {
  return ScratchCutter::width({input_size(), conv_channels(), 2 * num_heads, 2 * num_heads, inner()});
}

void Mamba2Spec::shape_kv(KvLayer& kv) const {
  kv.dtype = DType::kF32;
  kv.conv_floats = (taps - 1) * conv_channels();
  kv.scan_floats = inner() * num_states;
}

void Mamba2Spec::raise_limits(StepLimits& limits) const {
  limits.max_k = std::max(limits.max_k, inner());
  limits.need(RareOp::kLinearScan);
}

void Mamba2Spec::run(Backend& backend, const Mamba2Weights& w, const MixerInput& in) const {
  const int64_t rows = in.h.dim(0), stride = input_size(), channels = conv_channels();
  const DType type = in.scratch.dtype;
  ScratchCutter scratch(in.scratch, rows);
  const Tensor input = scratch.cut(stride), convolved = scratch.cut(channels);
  const Tensor decay = scratch.cut_f32(num_heads), steps = scratch.cut_f32(num_heads);
  const Tensor mixed = scratch.cut(inner());

  backend.linear(in.h, w.input, input);
  if (input_scales[0] != 1) backend.scaled_add(input, input_scales[0], {}, input);
  backend.causal_conv({.x = Tensor(input.at(inner()), type, {rows, channels}),
                       .in_gate = {},
                       .out_gate = {},
                       .x_stride = stride,
                       .weight = vector_of(w.conv, {taps, channels}),
                       .bias = vector_of(w.conv_bias, {channels}),
                       .kv = in.kv,
                       .batch = &in.group.attention,
                       .out = convolved});
  backend.scan_gates({.x = Tensor(input.at(inner() + channels), type, {rows, num_heads}),
                      .x_stride = stride,
                      .beta = {},
                      .bias = vector_of(w.step_bias, {num_heads}),
                      .rate = vector_of(w.rates, {num_heads}),
                      .x_scale = input_scales[4] / input_scales[0],
                      .least = least_step,
                      .most = most_step,
                      .decay = decay,
                      .strength = steps});
  const auto shared = [&](int64_t at) { return Tensor(convolved.at(at), type, {rows, num_groups, num_states}); };
  backend.linear_scan({.q = shared(inner() + group_states()),
                       .k = shared(inner()),
                       .v = Tensor(convolved.data, type, {rows, num_heads, head_dim}),
                       .qkv_stride = channels,
                       .decay = decay,
                       .strength = steps,
                       .skip = vector_of(w.skip, {num_heads}),
                       .kv = in.kv,
                       .batch = &in.group.attention,
                       .out = mixed});
  gate_and_norm(backend, w, Tensor(input.data, type, {rows, inner()}), mixed);
  backend.linear(mixed, w.output, in.out);
}

void Mamba2Spec::gate_and_norm(Backend& backend, const Mamba2Weights& w, const Tensor& gate,
                               const Tensor& mixed) const {
  if (norm.is_there() && has_norm_before_gate) norm_groups(backend, norm, w.norm, mixed, num_groups);
  backend.gate(Activation::kSilu, gate, input_size(), mixed, mixed.dim(1), mixed);
  if (norm.is_there() && !has_norm_before_gate) norm_groups(backend, norm, w.norm, mixed, num_groups);
}

}  // namespace serval
