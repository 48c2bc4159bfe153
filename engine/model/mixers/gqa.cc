#include "engine/model/mixers/gqa.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace serval {

void GqaSpec::list_slots(int64_t hidden, GqaWeights& w, SlotList& slots) const {
  slots.linear(
      w.qkv,
      {{"self_attn.q_proj", q_size()}, {"self_attn.k_proj", kv_size()}, {"self_attn.v_proj", kv_size()}},
      hidden, qkv_bias);
  slots.linear(w.output, {{"self_attn.o_proj", hidden}}, q_size(), output_bias);
  slots.norm(w.q_norm, "self_attn.q_norm", head_dim, head_norm);
  slots.norm(w.k_norm, "self_attn.k_norm", head_dim, head_norm);
}

void GqaSpec::shape_kv(KvLayer& kv) const {
  kv.num_kv_heads = num_kv_heads;
  kv.head_dim = head_dim;
}

void GqaSpec::raise_limits(StepLimits& limits) const {
  limits.num_heads = std::max(limits.num_heads, num_heads);
  limits.num_kv_heads = std::max(limits.num_kv_heads, num_kv_heads);
  limits.head_dim = std::max(limits.head_dim, head_dim);
  limits.max_k = std::max(limits.max_k, q_size());
}

// Project, normalise heads, rotate, store K and V, attend, project back.
void GqaSpec::run(Backend& backend, const GqaWeights& w, const MixerInput& in) const {
  const int64_t rows = in.h.dim(0);
  const int64_t stride = qkv_size();  // elements between the rows of q, of k and of v
  SERVAL_CHECK(in.group.attention.num_rows == rows, in.group.attention.num_rows, rows);

  const DType type = in.scratch.dtype;
  // [num_rows, q | k | v], then [num_rows, q_size]
  const Tensor qkv(in.scratch.data, type, {rows, stride});
  const Tensor attended(in.scratch.at(rows * stride), type, {rows, q_size()});
  backend.linear(in.h, w.qkv, qkv);

  const Tensor q(qkv.data, type, {rows, num_heads, head_dim});
  const Tensor k(qkv.at(q_size()), type, {rows, num_kv_heads, head_dim});
  const Tensor v(qkv.at(q_size() + kv_size()), type, {rows, num_kv_heads, head_dim});
  const auto norm_of = [&](const NormWeights& norm) {
    return head_norm.is_there() ? Tensor(norm.weight.data(), DType::kF32, {head_dim}) : Tensor();
  };
  backend.qk_norm_rope_write_kv({.q = q,
                         .k = k,
                         .v = v,
                         .row_stride = stride,
                         .q_norm = norm_of(w.q_norm),
                         .k_norm = norm_of(w.k_norm),
                         .eps = head_norm.eps,
                         .positions = in.positions.data(),
                         .cos_sin = in.cos_sin,
                         .rotary_dim = static_cast<int>(in.cos_sin.dim(1)),
                         .slots = in.group.slots,
                         .kv = in.kv});
  backend.attention({.q = q,
                     .kv = in.kv,
                     .batch = &in.group.attention,
                     .scale = scale,
                     .soft_cap = soft_cap,
                     .window = in.window,
                     .out = attended},
                    stride);
  backend.linear(attended, w.output, in.out);
}

}  // namespace serval
