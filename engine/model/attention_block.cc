// Attention of one layer: project, normalise heads, rotate, store K and V, attend, project back.
#include "engine/model/transformer.h"
#include "kernels/base/check.h"

namespace serval {

void Transformer::attention_block(const GqaSpec& spec, const GqaWeights& w, const ForwardInput& in,
                                  const KvLayer& kv, Workspace& ws) {
  const int64_t rows = in.num_rows();
  const int64_t stride = spec.qkv_size();  // elements between the rows of q, of k and of v
  const KvGroupInput& group = in.groups[spec.kv_group];
  SERVAL_CHECK(group.attention.num_rows == rows, group.attention.num_rows, rows);

  const DType type = ws.scratch.dtype;
  // [num_rows, q | k | v], then [num_rows, q_size]
  const Tensor qkv(ws.scratch.data, type, {rows, stride});
  const Tensor attended(ws.scratch.at(rows * stride), type, {rows, spec.q_size()});
  backend_.linear(ws.h, w.qkv, qkv);

  const Tensor q(qkv.data, type, {rows, spec.num_heads, spec.head_dim});
  const Tensor k(qkv.at(spec.q_size()), type, {rows, spec.num_kv_heads, spec.head_dim});
  const Tensor v(qkv.at(spec.q_size() + spec.kv_size()), type, {rows, spec.num_kv_heads, spec.head_dim});
  const auto head_norm = [&](const Buffer& weight) {
    return spec.qk_norm ? Tensor(weight.data(), DType::kF32, {spec.head_dim}) : Tensor();
  };
  backend_.prepare_heads({.q = q,
                          .k = k,
                          .v = v,
                          .row_stride = stride,
                          .q_norm = head_norm(w.q_norm),
                          .k_norm = head_norm(w.k_norm),
                          .eps = spec_.norm_eps,
                          .positions = in.positions.data(),
                          .cos_sin = cos_sin_,
                          .rotary_dim = spec_.rope.rotary_dim,
                          .slots = group.slots,
                          .kv = kv});
  backend_.attention({.q = q,
                      .kv = kv,
                      .batch = &group.attention,
                      .scale = spec.scale,
                      .window = spec_.kv_groups[spec.kv_group].window,
                      .out = attended},
                     stride);
  backend_.linear(attended, w.output, ws.x);
}

}  // namespace serval
