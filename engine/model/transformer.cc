#include "engine/model/transformer.h"

#include <algorithm>
#include <utility>
#include <variant>
#include <vector>

#include "engine/model/rope_table.h"
#include "kernels/base/check.h"

namespace serval {

Transformer::Transformer(ModelSpec spec, ModelWeights weights, const Limits& limits, Backend& backend)
    : spec_(std::move(spec)), weights_(std::move(weights)), backend_(backend) {
  const int max_positions = limits.max_positions;
  SERVAL_CHECK(max_positions > 0 && max_positions <= spec_.max_positions, max_positions, spec_.max_positions);
  SERVAL_CHECK(weights_.layers.size() == spec_.layers.size(), weights_.layers.size(), spec_.layers.size());
  rope_memory_ = backend.allocate(planned_bytes(spec_, max_positions));
  std::vector<float> table(rope_memory_.bytes / sizeof(float));
  fill_rope_table(spec_.rope, max_positions, table.data());
  backend.upload(rope_memory_.data(), table.data(), rope_memory_.bytes);
  cos_sin_ = Tensor(rope_memory_.data(), DType::kF32, {max_positions, spec_.rope.rotary_dim});
  reserve_scratch(spec_, limits, backend);
}

size_t Transformer::reserve_scratch(const ModelSpec& spec, const Limits& limits, Backend& backend) {
  BackendLimits most{.max_rows = limits.max_rows,
                     .max_logit_rows = limits.max_logit_rows,
                     .max_seqs = limits.max_seqs,
                     .max_model_len = limits.max_positions,
                     .table_stride = limits.table_stride,
                     .max_k = spec.hidden_size,
                     .max_n = spec.vocab_size,
                     .vocab = spec.vocab_size,
                     .num_kv_groups = static_cast<int>(spec.kv_groups.size())};
  for (int g = 0; g < most.num_kv_groups; ++g) most.windows[g] = spec.kv_groups[g].window;
  for (const LayerSpec& layer : spec.layers) {
    const auto& attention = std::get<GqaSpec>(layer.attention);
    const auto& ffn = std::get<DenseFfnSpec>(layer.ffn);
    most.num_heads = std::max(most.num_heads, attention.num_heads);
    most.num_kv_heads = std::max(most.num_kv_heads, attention.num_kv_heads);
    most.head_dim = std::max(most.head_dim, attention.head_dim);
    most.max_k = std::max({most.max_k, attention.q_size(), int64_t{ffn.intermediate_size}});
    most.max_n = std::max({most.max_n, attention.qkv_size(), int64_t{2} * ffn.intermediate_size});
  }
  return backend.reserve(most);
}

size_t Transformer::planned_bytes(const ModelSpec& spec, int max_positions) {
  return static_cast<size_t>(max_positions) * spec.rope.rotary_dim * sizeof(float);
}

void Transformer::forward(const ForwardInput& in, std::span<const KvLayer> kv, Workspace& ws) {
  SERVAL_CHECK(kv.size() == spec_.layers.size(), kv.size(), spec_.layers.size());
  SERVAL_CHECK(in.positions.size() == in.token_ids.size(), in.positions.size(), in.token_ids.size());
  ws.start(in.num_rows());
  backend_.embed(weights_.embedding, in.token_ids, ws.residual);
  Tensor pending;  // what the block before adds to the residual: nothing yet
  for (int l = 0; l < spec_.num_layers(); ++l) {
    const auto& [attention, ffn] = spec_.layers[l];
    const LayerWeights& w = weights_.layers[l];
    add_norm(ws.residual, pending, w.attention_norm, ws.h);
    attention_block(std::get<GqaSpec>(attention), std::get<GqaWeights>(w.attention), in, kv[l],
                    ws);  // ws.h -> ws.x
    add_norm(ws.residual, ws.x, w.ffn_norm, ws.h);
    ffn_block(std::get<DenseFfnSpec>(ffn), std::get<DenseFfnWeights>(w.ffn), ws);  // ws.h -> ws.x
    pending = ws.x;
  }
  add_norm(ws.residual, pending, weights_.final_norm, ws.h);
}

Tensor Transformer::logits(std::span<const int32_t> rows, Workspace& ws) {
  ws.start_logits(static_cast<int>(rows.size()));
  backend_.gather_rows(ws.h, rows, ws.last);
  backend_.linear(ws.last, weights_.head(), ws.logits);
  return ws.logits;
}

Tensor Transformer::all_logits(Workspace& ws) {
  ws.start_logits(static_cast<int>(ws.h.dim(0)));
  backend_.linear(ws.h, weights_.head(), ws.logits);
  return ws.logits;
}

void Transformer::add_norm(const Tensor& residual, const Tensor& x, const Buffer& weight, const Tensor& out) {
  backend_.add_rms_norm(residual, x, Tensor(weight.data(), DType::kF32, {spec_.hidden_size}), spec_.norm_eps,
                        out);
}

}  // namespace serval
