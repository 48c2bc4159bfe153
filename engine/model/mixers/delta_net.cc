#include "engine/model/mixers/delta_net.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/model/mixers/state_parts.h"

namespace serval {
namespace {

// Of a tensor in which so many groups follow each other, each with its share of blocks of these sizes: the rows that
// make the blocks one behind the other.
std::vector<RowRange> by_turns(const std::vector<int64_t>& sizes, int64_t turns) {
  int64_t all = 0, before = 0;
  for (const int64_t size : sizes) all += size;
  std::vector<RowRange> rows;
  for (const int64_t size : sizes) {
    for (int64_t g = 0; g < turns; ++g) rows.push_back({g * (all / turns) + before, size / turns});
    before += size / turns;
  }
  return rows;
}

}  // namespace

void DeltaNetSpec::list_slots(int64_t hidden, DeltaNetWeights& w, SlotList& slots) const {
  const auto turns = [&](const std::vector<int64_t>& sizes) {
    return has_rows_by_key_head ? by_turns(sizes, num_key_heads) : std::vector<RowRange>();
  };
  slots.linear(w.input,
               {{"linear_attn.q_proj", key_width(), turns({key_width(), key_width(), value_width(), value_width()})},
                {"linear_attn.k_proj", key_width()},
                {"linear_attn.v_proj", value_width()},
                {"linear_attn.g_proj", value_width()},
                {"linear_attn.b_proj", num_heads, turns({num_heads, num_heads})},
                {"linear_attn.a_proj", num_heads}},
               hidden, false);
  if (has_conv_each) {
    list_qkv_convs(slots, "linear_attn", w.conv, {key_width(), key_width(), value_width()}, taps);
  } else {
    slots.vector(w.conv, "linear_attn.conv1d.weight", {conv_channels(), 1, taps}, channels_last);
  }
  slots.vector(w.step_bias, "linear_attn.dt_bias", {num_heads});
  slots.vector(w.rates, "linear_attn.A_log", {num_heads}, rates_from_log);
  slots.constant(w.unit, unit_length(key_dim));
  slots.norm(w.norm, "linear_attn.o_norm", value_dim, norm);
  slots.linear(w.output, {{"linear_attn.o_proj", hidden}}, value_width(), false);
}

// The projection; the convolved; decays and strengths in f32, as wide as two elements; the mixed.
int64_t DeltaNetSpec::scratch_width() const {
  return ScratchCutter::width({input_size(), conv_channels(), 2 * num_heads, 2 * num_heads, value_width()});
}

void DeltaNetSpec::shape_kv(KvLayer& kv) const {
  kv.dtype = DType::kF32;
  kv.conv_floats = (taps - 1) * conv_channels();
  kv.scan_floats = value_width() * key_dim;
}

void DeltaNetSpec::raise_limits(StepLimits& limits) const {
  limits.max_k = std::max(limits.max_k, value_width());
  limits.need(RareOp::kLinearScan);
}

void DeltaNetSpec::run(Backend& backend, const DeltaNetWeights& w, const MixerInput& in) const {
  const int64_t rows = in.h.dim(0), stride = input_size(), channels = conv_channels();
  const DType type = in.scratch.dtype;
  ScratchCutter scratch(in.scratch, rows);
  const Tensor input = scratch.cut(stride), convolved = scratch.cut(channels);
  const Tensor decay = scratch.cut_f32(num_heads), strength = scratch.cut_f32(num_heads);
  const Tensor mixed = scratch.cut(value_width());
  const auto of_heads = [&](int64_t behind) {
    return Tensor(input.at(channels + value_width() + behind), type, {rows, num_heads});
  };

  backend.linear(in.h, w.input, input);
  backend.causal_conv({.x = Tensor(input.data, type, {rows, channels}),
                       .in_gate = {},
                       .out_gate = {},
                       .x_stride = stride,
                       .weight = vector_of(w.conv, {taps, channels}),
                       .bias = {},
                       .kv = in.kv,
                       .batch = &in.group.attention,
                       .out = convolved});
  // Queries and keys lie side by side, all of length one.
  backend.head_rms_norm(Tensor(convolved.data, type, {rows, 2 * num_key_heads, key_dim}), channels,
                        vector_of(w.unit, {key_dim}), kLengthEps / static_cast<float>(key_dim));
  backend.scan_gates({.x = of_heads(num_heads),
                      .x_stride = stride,
                      .beta = of_heads(0),
                      .beta_stride = stride,
                      .bias = vector_of(w.step_bias, {num_heads}),
                      .rate = vector_of(w.rates, {num_heads}),
                      .beta_scale = beta_scale,
                      .decay = decay,
                      .strength = strength});
  backend.linear_scan({.q = Tensor(convolved.data, type, {rows, num_key_heads, key_dim}),
                       .k = Tensor(convolved.at(key_width()), type, {rows, num_key_heads, key_dim}),
                       .v = Tensor(convolved.at(2 * key_width()), type, {rows, num_heads, value_dim}),
                       .qkv_stride = channels,
                       .decay = decay,
                       .strength = strength,
                       .has_delta_rule = true,
                       .scale = 1 / std::sqrt(static_cast<float>(key_dim)),
                       .skip = {},
                       .kv = in.kv,
                       .batch = &in.group.attention,
                       .out = mixed});
  norm_heads(backend, norm, w.norm, mixed, num_heads, value_width());
  backend.gate(Activation::kSilu, Tensor(input.at(channels), type, {rows, value_width()}), stride, mixed,
               value_width(), mixed);
  backend.linear(mixed, w.output, in.out);
}

}  // namespace serval
