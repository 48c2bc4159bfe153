// Attention of one layer: project, normalise heads, rotate, store K and V, attend, project back.
#include "engine/model/transformer.h"
#include "kernels/base/check.h"

namespace serval {

void Transformer::attention_block(const GqaSpec& spec, const GqaWeights& w, const ForwardInput& in,
                                  const KvLayer& kv, Workspace& ws) {
  const int64_t rows = in.num_rows();
  const int64_t stride = spec.qkv_size();  // floats between the rows of q, of k and of v
  const KvGroupInput& group = in.groups[spec.kv_group];
  SERVAL_CHECK(group.attention.num_rows == rows, group.attention.num_rows, rows);

  // [num_rows, q | k | v], then [num_rows, q_size]
  const Tensor qkv(ws.scratch, DType::kF32, {rows, stride});
  const Tensor attended(ws.scratch + rows * stride, DType::kF32, {rows, spec.q_size()});
  backend_.linear(ws.h, w.qkv, qkv);

  float* const first = qkv.as<float>();
  const Tensor q(first, DType::kF32, {rows, spec.num_heads, spec.head_dim});
  const Tensor k(first + spec.q_size(), DType::kF32, {rows, spec.num_kv_heads, spec.head_dim});
  const Tensor v(first + spec.q_size() + spec.kv_size(), DType::kF32,
                 {rows, spec.num_kv_heads, spec.head_dim});
  if (spec.qk_norm) {
    backend_.head_rms_norm(q, stride, Tensor(w.q_norm.data(), DType::kF32, {spec.head_dim}), spec_.norm_eps);
    backend_.head_rms_norm(k, stride, Tensor(w.k_norm.data(), DType::kF32, {spec.head_dim}), spec_.norm_eps);
  }
  // q and k lie side by side and turn alike: one call over both.
  const Tensor qk(first, DType::kF32, {rows, spec.num_heads + spec.num_kv_heads, spec.head_dim});
  backend_.rope({.x = qk,
                 .row_stride = stride,
                 .positions = in.positions.data(),
                 .cos_sin = cos_sin_,
                 .rotary_dim = spec_.rope.rotary_dim});
  backend_.write_kv({.k = k, .v = v, .row_stride = stride, .slots = group.slots, .kv = kv});
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
