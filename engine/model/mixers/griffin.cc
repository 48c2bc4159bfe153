#include "engine/model/mixers/griffin.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "engine/model/mixers/state_parts.h"

namespace serval {

void GriffinSpec::list_slots(int64_t hidden, GriffinWeights& w, SlotList& slots) const {
  slots.linear(w.mixed, {{"temporal_block.linear_x", width}}, hidden, true);
  slots.linear(w.gate, {{"temporal_block.linear_y", width}}, hidden, true);
  slots.vector(w.conv, "temporal_block.conv_1d.weight", {width, 1, taps}, channels_last);
  slots.vector(w.conv_bias, "temporal_block.conv_1d.bias", {width});
  const int64_t block = width / num_heads;
  // The heads' matrices are one tensor, each turned round.
  const auto heads = [&](std::vector<LinearWeight>& weights, std::string_view tensor) {
    weights.resize(num_heads);
    for (int h = 0; h < num_heads; ++h) slots.expert_linear(weights[h], {h, num_heads}, {{tensor, block}}, block, false);
  };
  heads(w.in_gate, "temporal_block.rg_lru.input_gate_weight");
  heads(w.decay_gate, "temporal_block.rg_lru.recurrent_gate_weight");
  slots.vector(w.in_bias, "temporal_block.rg_lru.input_gate_bias", {num_heads, block});
  slots.vector(w.decay_bias, "temporal_block.rg_lru.recurrent_gate_bias", {num_heads, block});
  slots.vector(w.rate, "temporal_block.rg_lru.recurrent_param", {width},
               [](std::vector<float>& values, const std::vector<int64_t>&) {
                 for (float& value : values) value = -8 * (std::max(value, 0.0f) + std::log1p(std::exp(-std::abs(value))));
               });
  slots.linear(w.output, {{"temporal_block.linear_out", hidden}}, width, true);
}

// The branch that is mixed, the convolved, two gates, and the branch that gates.
int64_t GriffinSpec::scratch_width() const {
  return ScratchCutter::width({width, width, width, width, width});
}

void GriffinSpec::shape_kv(KvLayer& kv) const {
  kv.dtype = DType::kF32;
  kv.conv_floats = int64_t{taps - 1} * width;
  kv.scan_floats = width;
}

void GriffinSpec::raise_limits(StepLimits& limits) const {
  limits.max_k = std::max(limits.max_k, int64_t{width});
  limits.need(RareOp::kHeadLinear);
  limits.need(RareOp::kGatedScan);
}

void GriffinSpec::run(Backend& backend, const GriffinWeights& w, const MixerInput& in) const {
  const int64_t rows = in.h.dim(0), block = width / num_heads;
  const DType type = in.scratch.dtype;
  ScratchCutter scratch(in.scratch, rows);
  const Tensor mixed = scratch.cut(width), convolved = scratch.cut(width), in_gate = scratch.cut(width),
               decay_gate = scratch.cut(width), gate = scratch.cut(width);
  const auto by_heads = [&](const std::vector<LinearWeight>& weights, const Tensor& out) {
    backend.head_linear({.x = Tensor(convolved.data, type, {rows, num_heads, block}),
                         .x_row_stride = width,
                         .x_head_stride = block,
                         .heads = weights,
                         .out = Tensor(out.data, type, {rows, num_heads, block}),
                         .out_row_stride = width,
                         .out_head_stride = block});
  };
  backend.linear(in.h, w.mixed, mixed);
  backend.linear(in.h, w.gate, gate);
  backend.causal_conv({.x = mixed,
                       .in_gate = {},
                       .out_gate = {},
                       .x_stride = width,
                       .weight = vector_of(w.conv, {taps, width}),
                       .bias = vector_of(w.conv_bias, {width}),
                       .has_silu = false,
                       .kv = in.kv,
                       .batch = &in.group.attention,
                       .out = convolved});
  by_heads(w.in_gate, in_gate);
  by_heads(w.decay_gate, decay_gate);
  backend.gated_scan({.x = convolved,
                      .in_gate = in_gate,
                      .decay_gate = decay_gate,
                      .in_bias = vector_of(w.in_bias, {width}),
                      .decay_bias = vector_of(w.decay_bias, {width}),
                      .rate = vector_of(w.rate, {width}),
                      .kv = in.kv,
                      .batch = &in.group.attention,
                      .out = mixed});
  backend.gate(activation, gate, width, mixed, width, mixed);
  backend.linear(mixed, w.output, in.out);
}

}  // namespace serval
