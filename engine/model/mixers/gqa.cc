#include "engine/model/mixers/gqa.h"

#include <algorithm>
#include <utility>

#include "kernels/base/check.h"

namespace serval {

namespace {

// What the fused call would do in another place is done before it, and taken out of it.
void normalise_elsewhere(Backend& backend, HeadNormPlace place, QkNormRopeWriteKvArgs& heads) {
  if (place == HeadNormPlace::kEachHead) return;
  Tensor q = heads.q, k = heads.k;
  const int64_t rows = q.dim(0), head_dim = q.dim(2);
  if (place == HeadNormPlace::kAllHeads) {
    q = Tensor(q.data, q.dtype, {rows, 1, q.dim(1) * head_dim});
    k = Tensor(k.data, k.dtype, {rows, 1, k.dim(1) * head_dim});
  } else if (heads.rotary_dim > 0) {
    backend.rope({.x = Tensor(q.data, q.dtype, {rows, q.dim(1) + k.dim(1), head_dim}),
                  .row_stride = heads.row_stride,
                  .positions = heads.positions,
                  .cos_sin = std::exchange(heads.cos_sin, {}),
                  .rotary_dim = std::exchange(heads.rotary_dim, 0)});
  }
  backend.head_rms_norm(q, heads.row_stride, std::exchange(heads.q_norm, {}), heads.eps);
  backend.head_rms_norm(k, heads.row_stride, std::exchange(heads.k_norm, {}), heads.eps);
}

}  // namespace

void GqaSpec::list_slots(int64_t hidden, GqaWeights& w, SlotList& slots) const {
  slots.linear(
      w.qkv,
      {{"self_attn.q_proj", q_size()}, {"self_attn.k_proj", kv_size()}, {"self_attn.v_proj", kv_size()}},
      hidden, qkv_bias);
  slots.linear(w.output, {{"self_attn.o_proj", hidden}}, q_size(), output_bias);
  const bool is_wide = head_norm_place == HeadNormPlace::kAllHeads;
  slots.norm(w.q_norm, "self_attn.q_norm", is_wide ? q_size() : head_dim, head_norm);
  slots.norm(w.k_norm, "self_attn.k_norm", is_wide ? kv_size() : head_dim, head_norm);
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
    return head_norm.is_there()
               ? Tensor(norm.weight.data(), DType::kF32, {static_cast<int64_t>(norm.weight.bytes / sizeof(float))})
               : Tensor();
  };
  QkNormRopeWriteKvArgs heads{.q = q,
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
                              .kv = in.kv};
  if (head_norm.is_there()) normalise_elsewhere(backend, head_norm_place, heads);
  backend.qk_norm_rope_write_kv(heads);
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
