#include "engine/model/transformer.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "engine/model/rope_table.h"
#include "kernels/base/check.h"

namespace serval {

Transformer::Transformer(ModelSpec spec, ModelWeights weights, int max_positions, int max_rows,
                         Backend& backend)
    : spec_(std::move(spec)), weights_(std::move(weights)), backend_(backend) {
  SERVAL_CHECK(max_positions > 0 && max_positions <= spec_.max_positions, max_positions, spec_.max_positions);
  SERVAL_CHECK(weights_.layers.size() == spec_.layers.size(), weights_.layers.size(), spec_.layers.size());
  rope_memory_ = backend.allocate(planned_bytes(spec_, max_positions));
  fill_rope_table(spec_.rope, max_positions, rope_memory_.as<float>());
  cos_sin_ = Tensor(rope_memory_.data(), DType::kF32, {max_positions, spec_.rope.rotary_dim});
  reserve_scratch(spec_, max_rows, backend);
}

size_t Transformer::reserve_scratch(const ModelSpec& spec, int max_rows, Backend& backend) {
  int heads = 0, head_dim = 0;
  int64_t longest_k = spec.hidden_size, longest_n = spec.vocab_size;
  for (const LayerSpec& layer : spec.layers) {
    const auto& attention = std::get<GqaSpec>(layer.attention);
    const auto& ffn = std::get<DenseFfnSpec>(layer.ffn);
    heads = std::max(heads, attention.num_heads);
    head_dim = std::max(head_dim, attention.head_dim);
    longest_k = std::max({longest_k, attention.q_size(), int64_t{ffn.intermediate_size}});
    longest_n = std::max({longest_n, attention.qkv_size(), int64_t{2} * ffn.intermediate_size});
  }
  return backend.reserve(max_rows, heads, head_dim, longest_k, longest_n);
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

void Transformer::add_norm(const Tensor& residual, const Tensor& x, const Buffer& weight, const Tensor& out) {
  backend_.add_rms_norm(residual, x, Tensor(weight.data(), DType::kF32, {spec_.hidden_size}), spec_.norm_eps,
                        out);
}

}  // namespace serval
