#include "engine/model/mixers/zamba_block.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "engine/model/mixers/state_parts.h"
#include "kernels/base/check.h"

namespace serval {

void ZambaBlockSpec::list_slots(int64_t hidden_size, ZambaBlockWeights& w, SlotList& slots) const {
  if (user > 0) return;
  const int64_t wide = width();
  slots.norm(w.norm, "shared_transformer.input_layernorm", wide, norm);
  slots.linear(w.qkv,
               {{"shared_transformer.self_attn.q_proj", wide},
                {"shared_transformer.self_attn.k_proj", wide},
                {"shared_transformer.self_attn.v_proj", wide}},
               wide, false);
  slots.linear(w.output, {{"shared_transformer.self_attn.o_proj", hidden_size}}, wide, false);
  slots.norm(w.ffn_norm, "shared_transformer.pre_ff_layernorm", hidden_size, norm);
  const int64_t both = 2 * int64_t{intermediate_size};
  slots.linear(w.gate_up,
               {{"shared_transformer.feed_forward.gate_proj", intermediate_size}, {"shared_transformer.feed_forward.up_proj", intermediate_size}},
               hidden_size, has_ffn_bias);
  slots.linear(w.down, {{"shared_transformer.feed_forward.down_proj", hidden_size}}, intermediate_size, has_ffn_bias);
  w.uses.resize(users.size());
  for (size_t u = 0; u < users.size(); ++u) {
    const auto adapter = [&](ZambaBlockWeights::Adapter& to, const std::string& list, int64_t out, int64_t in) {
      const std::string module = "shared_transformer." + list + "." + std::to_string(users[u].number);
      slots.linear(to.down, {{module + ".0", adapter_rank}}, in, false);
      slots.linear(to.up, {{module + ".1", out}}, adapter_rank, false);
    };
    if (has_attention_adapters) {
      adapter(w.uses[u].q, "self_attn.linear_q_adapter_list", wide, wide);
      adapter(w.uses[u].k, "self_attn.linear_k_adapter_list", wide, wide);
      adapter(w.uses[u].v, "self_attn.linear_v_adapter_list", wide, wide);
    }
    if (adapter_rank > 0) adapter(w.uses[u].gate_up, "feed_forward.gate_up_proj_adapter_list", both, hidden_size);
    SlotList own = slots.of_layer(users[u].stored_layer);
    own.linear(w.uses[u].projection, {{"linear", hidden_size}}, hidden_size, false);
  }
}

// What is read; q, k and v; what an adapter adds, of low rank and whole; what attention gives and made of it; gate and up.
int64_t ZambaBlockSpec::scratch_width() const {
  return ScratchCutter::width({width(), 3 * width(), adapter_rank, std::max(width(), 2 * intermediate_size), width(), hidden,
                               2 * intermediate_size, intermediate_size});
}

void ZambaBlockSpec::shape_kv(KvLayer& kv) const {
  kv.num_kv_heads = num_heads;
  kv.head_dim = head_dim();
}

void ZambaBlockSpec::raise_limits(StepLimits& limits) const {
  limits.need(RareOp::kFarQueries);
  limits.num_heads = std::max(limits.num_heads, num_heads);
  limits.num_kv_heads = std::max(limits.num_kv_heads, num_heads);
  limits.head_dim = std::max(limits.head_dim, head_dim());
  limits.max_k = std::max<int64_t>({limits.max_k, width(), intermediate_size, adapter_rank});
}

void ZambaBlockSpec::run(Backend& backend, const ZambaBlockWeights& w, const MixerInput& in) const {
  const int64_t rows = in.h.dim(0), wide = width(), dim = head_dim();
  const DType type = in.scratch.dtype;
  const ZambaBlockWeights::Use& use = w.uses[user];
  ScratchCutter scratch(in.scratch, rows);
  const Tensor both = scratch.cut(wide), qkv = scratch.cut(3 * wide), low = scratch.cut(adapter_rank),
               added = scratch.cut(std::max<int64_t>(wide, 2 * int64_t{intermediate_size})), attended = scratch.cut(wide),
               h = scratch.cut(hidden), gate_up = scratch.cut(2 * int64_t{intermediate_size}), inner = scratch.cut(intermediate_size);
  // x [rows, 1, width] of `to`, with stride between its rows, becomes what `from` is.
  const auto copy = [&](const Tensor& from, const Tensor& to, int64_t at, int64_t stride) {
    backend.copy_heads({.x = Tensor(from.data, type, {rows, 1, from.dim(1)}),
                        .x_row_stride = from.dim(1),
                        .x_head_stride = 0,
                        .out = Tensor(to.at(at), type, {rows, 1, from.dim(1)}),
                        .out_row_stride = stride,
                        .out_head_stride = 0});
  };
  const auto adapt = [&](const ZambaBlockWeights::Adapter& adapter, const Tensor& x, int64_t out) {
    const Tensor more(added.data, type, {rows, out});
    backend.linear(x, adapter.down, low);
    backend.linear(low, adapter.up, more);
    return more;
  };
  copy(in.h, both, 0, wide);
  copy(in.embedded, both, hidden, wide);
  add_norm(backend, norm, w.norm, both, {}, both);
  backend.linear(both, w.qkv, qkv);
  if (has_attention_adapters) {
    // Each in the place of what it is added to: attended is not needed yet.
    const ZambaBlockWeights::Adapter* const adapters[] = {&use.q, &use.k, &use.v};
    for (int i = 0; i < 3; ++i) {
      const Tensor more = adapt(*adapters[i], both, wide);
      backend.copy_heads({.x = Tensor(qkv.at(i * wide), type, {rows, 1, wide}),
                          .x_row_stride = 3 * wide,
                          .x_head_stride = 0,
                          .out = Tensor(attended.data, type, {rows, 1, wide}),
                          .out_row_stride = wide,
                          .out_head_stride = 0});
      backend.scaled_add(more, 1, attended, attended);
      copy(attended, qkv, i * wide, 3 * wide);
    }
  }
  const auto heads = [&](int64_t at) { return Tensor(qkv.at(at), type, {rows, num_heads, dim}); };
  backend.qk_norm_rope_write_kv({.q = heads(0),
                                 .k = heads(wide),
                                 .v = heads(2 * wide),
                                 .row_stride = 3 * wide,
                                 .positions = in.positions.data(),
                                 .cos_sin = in.cos_sin,
                                 .rotary_dim = in.cos_sin.data == nullptr ? 0 : static_cast<int>(in.cos_sin.dim(1)),
                                 .slots = in.group.slots,
                                 .kv = in.kv});
  backend.attention({.q = heads(0),
                     .kv = in.kv,
                     .batch = &in.group.attention,
                     .scale = 1 / std::sqrt(static_cast<float>(dim) / 2),
                     .out = attended},
                    3 * wide);
  backend.linear(attended, w.output, h);
  add_norm(backend, norm, w.ffn_norm, h, {}, h);
  backend.linear(h, w.gate_up, gate_up);
  if (adapter_rank > 0) backend.scaled_add(adapt(use.gate_up, h, 2 * int64_t{intermediate_size}), 1, gate_up, gate_up);
  backend.gated_activation(activation, gate_up, inner);
  backend.linear(inner, w.down, h);
  backend.linear(h, use.projection, in.out);
}

}  // namespace serval
