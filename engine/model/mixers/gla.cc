#include "engine/model/mixers/gla.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "engine/model/mixers/state_parts.h"

namespace serval {

void GlaSpec::list_slots(int64_t hidden, GlaWeights& w, SlotList& slots) const {
  std::vector<SlotList::Rows> rows = {{"self_attn.q_proj", key_width()},
                                      {"self_attn.k_proj", key_width()},
                                      {"self_attn.v_proj", value_width()}};
  if (has_gate) rows.push_back({"self_attn.g_proj", value_width()});
  slots.linear(w.input, rows, hidden, false);
  if (gate_rank > 0) {
    slots.linear(w.step_low, {{"self_attn.gk_proj.0", gate_rank}}, hidden, false);
    slots.linear(w.step, {{"self_attn.gk_proj.1", key_width()}}, gate_rank, true);
    slots.constant(w.rates, std::vector<float>(num_heads, -1 / normaliser));
  } else {
    slots.constant(w.decays, decays);
  }
  slots.norm(w.norm, "self_attn.g_norm", value_dim, norm);
  slots.linear(w.output, {{"self_attn.o_proj", hidden}}, value_width(), false);
}

// The projection; what steps come out of, and steps; decays and steps in f32, as wide as two elements; the mixed.
int64_t GlaSpec::scratch_width() const {
  const int64_t steps = gate_rank > 0 ? key_width() : 0;
  return ScratchCutter::width({input_size(), gate_rank, steps, 2 * steps, 2 * steps, value_width()});
}

void GlaSpec::shape_kv(KvLayer& kv) const {
  kv.dtype = DType::kF32;
  kv.scan_floats = key_width() * value_dim;
}

void GlaSpec::raise_limits(StepLimits& limits) const {
  limits.max_k = std::max({limits.max_k, value_width(), int64_t{gate_rank}});
  limits.need(RareOp::kLinearScan);
}

void GlaSpec::run(Backend& backend, const GlaWeights& w, const MixerInput& in) const {
  const int64_t rows = in.h.dim(0), stride = input_size(), steps = gate_rank > 0 ? key_width() : 0;
  const DType type = in.scratch.dtype;
  ScratchCutter scratch(in.scratch, rows);
  const Tensor input = scratch.cut(stride), step_low = scratch.cut(gate_rank), step = scratch.cut(steps);
  const Tensor decay = scratch.cut_f32(steps), strength = scratch.cut_f32(steps), mixed = scratch.cut(value_width());
  const auto keys = [&](int64_t at, int64_t heads) { return Tensor(input.at(at), type, {rows, heads, key_dim}); };

  backend.linear(in.h, w.input, input);
  if (in.cos_sin.data != nullptr)  // queries and keys lie side by side
    backend.rope({.x = keys(0, 2 * int64_t{num_heads}),
                  .row_stride = stride,
                  .positions = in.positions.data(),
                  .cos_sin = in.cos_sin,
                  .rotary_dim = key_dim});
  if (gate_rank > 0) {
    backend.linear(in.h, w.step_low, step_low);
    backend.linear(step_low, w.step, step);
    // log(sigmoid(x)) is minus the softplus of -x.
    backend.scan_gates({.x = step,
                        .x_stride = steps,
                        .beta = {},
                        .bias = {},
                        .rate = vector_of(w.rates, {num_heads}),
                        .x_scale = -1,
                        .most = least_log_decay < 0 ? -least_log_decay * normaliser : std::numeric_limits<float>::infinity(),
                        .decay = decay,
                        .strength = strength});
  }
  backend.linear_scan({.q = keys(0, num_heads),
                       .k = keys(key_width(), num_heads),
                       .v = Tensor(input.at(2 * key_width()), type, {rows, num_heads, value_dim}),
                       .qkv_stride = stride,
                       .decay = gate_rank > 0 ? decay : vector_of(w.decays, {1, num_heads}),
                       .strength = {},
                       .scale = 1 / std::sqrt(static_cast<float>(key_dim)),
                       .skip = {},
                       .kv = in.kv,
                       .batch = &in.group.attention,
                       .out = mixed});
  norm_heads(backend, norm, w.norm, mixed, num_heads, value_width());
  if (has_gate)
    backend.gate(Activation::kSilu, Tensor(input.at(2 * key_width() + value_width()), type, {rows, value_width()}), stride,
                 mixed, value_width(), mixed);
  backend.linear(mixed, w.output, in.out);
}

}  // namespace serval
