#include "engine/model/mixers/kda.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/model/mixers/state_parts.h"

namespace serval {

void KdaSpec::list_slots(int64_t hidden, KdaWeights& w, SlotList& slots) const {
  slots.linear(w.input,
               {{"self_attn.q_proj", width()},
                {"self_attn.k_proj", width()},
                {"self_attn.v_proj", width()},
                {"self_attn.b_proj", num_heads}},
               hidden, false);
  if (step_rank > 0) slots.linear(w.step_low, {{"self_attn.f_a_proj", step_rank}}, hidden, false);
  slots.linear(w.step, {{"self_attn.f_b_proj", width()}}, step_rank > 0 ? step_rank : hidden, false);
  if (gate_rank > 0) slots.linear(w.gate_low, {{"self_attn.g_a_proj", gate_rank}}, hidden, false);
  slots.linear(w.gate, {{"self_attn.g_b_proj", width()}}, gate_rank > 0 ? gate_rank : hidden, false);
  list_qkv_convs(slots, "self_attn", w.conv, {width(), width(), width()}, taps);
  slots.vector(w.step_bias, "self_attn.dt_bias", {width()});
  const std::vector<int64_t> rates = has_flat_rates ? std::vector<int64_t>{num_heads}
                                                    : std::vector<int64_t>{1, 1, num_heads, 1};
  slots.vector(w.rates, "self_attn.A_log", rates, rates_from_log);
  slots.constant(w.unit, unit_length(head_dim));
  slots.norm(w.norm, "self_attn.o_norm", head_dim, norm);
  slots.linear(w.output, {{"self_attn.o_proj", hidden}}, width(), false);
}

// The projection; the convolved; steps and gates; what both come out of; decays and strengths in f32, as wide as two
// elements; the mixed.
int64_t KdaSpec::scratch_width() const {
  return ScratchCutter::width({input_size(), 3 * width(), width(), width(), step_rank, gate_rank, 2 * width(),
                               2 * num_heads, width()});
}

void KdaSpec::shape_kv(KvLayer& kv) const {
  kv.dtype = DType::kF32;
  kv.conv_floats = (taps - 1) * 3 * width();
  kv.scan_floats = width() * head_dim;
}

void KdaSpec::raise_limits(StepLimits& limits) const {
  limits.max_k = std::max(limits.max_k, width());
  limits.need(RareOp::kLinearScan);
}

void KdaSpec::run(Backend& backend, const KdaWeights& w, const MixerInput& in) const {
  const int64_t rows = in.h.dim(0), stride = input_size(), channels = 3 * width();
  const DType type = in.scratch.dtype;
  ScratchCutter scratch(in.scratch, rows);
  const Tensor input = scratch.cut(stride), convolved = scratch.cut(channels);
  const Tensor step = scratch.cut(width()), gate = scratch.cut(width());
  const Tensor step_low = scratch.cut(step_rank), gate_low = scratch.cut(gate_rank);
  const Tensor decay = scratch.cut_f32(width()), strength = scratch.cut_f32(num_heads);
  const Tensor mixed = scratch.cut(width());
  const auto heads = [&](int64_t at) { return Tensor(convolved.at(at), type, {rows, num_heads, head_dim}); };

  backend.linear(in.h, w.input, input);
  if (step_rank > 0) backend.linear(in.h, w.step_low, step_low);
  backend.linear(step_rank > 0 ? step_low : in.h, w.step, step);
  if (gate_rank > 0) backend.linear(in.h, w.gate_low, gate_low);
  backend.linear(gate_rank > 0 ? gate_low : in.h, w.gate, gate);
  backend.causal_conv({.x = Tensor(input.data, type, {rows, channels}),
                       .in_gate = {},
                       .out_gate = {},
                       .x_stride = stride,
                       .weight = vector_of(w.conv, {taps, channels}),
                       .bias = {},
                       .kv = in.kv,
                       .batch = &in.group.attention,
                       .out = convolved});
  backend.head_rms_norm(Tensor(convolved.data, type, {rows, 2 * num_heads, head_dim}), channels,
                        vector_of(w.unit, {head_dim}), kLengthEps / static_cast<float>(head_dim));
  backend.scan_gates({.x = step,
                      .x_stride = width(),
                      .beta = Tensor(input.at(channels), type, {rows, num_heads}),
                      .beta_stride = stride,
                      .bias = vector_of(w.step_bias, {width()}),
                      .rate = vector_of(w.rates, {num_heads}),
                      .lower_bound = lower_bound,
                      .decay = decay,
                      .strength = strength});
  backend.linear_scan({.q = heads(0),
                       .k = heads(width()),
                       .v = heads(2 * width()),
                       .qkv_stride = channels,
                       .decay = decay,
                       .strength = strength,
                       .has_delta_rule = true,
                       .scale = 1 / std::sqrt(static_cast<float>(head_dim)),
                       .skip = {},
                       .kv = in.kv,
                       .batch = &in.group.attention,
                       .out = mixed});
  norm_heads(backend, norm, w.norm, mixed, num_heads, width());
  backend.gate(Activation::kSigmoid, gate, width(), mixed, width(), mixed);
  backend.linear(mixed, w.output, in.out);
}

}  // namespace serval
