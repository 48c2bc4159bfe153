#include "engine/model/mixers/indexer.h"

#include <algorithm>
#include <vector>

#include "engine/model/mixers/state_parts.h"

namespace serval {
namespace {

// Of a head: the pairs' first numbers, then the second, then what does not rotate.
void add_head(std::vector<RowRange>& rows, int64_t first, int64_t head_dim, int64_t interleaved) {
  rows.push_back({first, interleaved / 2, 2});
  rows.push_back({first + 1, interleaved / 2, 2});
  if (head_dim > interleaved) rows.push_back({first + interleaved, head_dim - interleaved});
}

}  // namespace

void IndexerSpec::list_slots(int64_t hidden, int64_t query_in, IndexerWeights& w, SlotList& slots) const {
  const int64_t width = int64_t{num_heads} * head_dim;
  if (interleaved_dims == 0) {
    slots.linear(w.query, {{"self_attn.indexer.q_proj", width}}, query_in, false);
    slots.linear(w.key, {{"self_attn.indexer.k_proj", head_dim}}, hidden, false);
  } else {
    std::vector<RowRange> queries, key;
    for (int h = 0; h < num_heads; ++h) add_head(queries, int64_t{h} * head_dim, head_dim, interleaved_dims);
    add_head(key, 0, head_dim, interleaved_dims);
    slots.reordered_linear(w.query, "self_attn.indexer.q_proj", queries, query_in, false);
    slots.reordered_linear(w.key, "self_attn.indexer.k_proj", key, hidden, false);
  }
  if (has_weights) slots.unrounded_linear(w.weights, {{"self_attn.indexer.weights_proj", num_heads}}, hidden, false);
  slots.norm(w.query_norm, "self_attn.indexer.q_norm", head_dim, query_norm);
  if (interleaved_dims == 0) return slots.norm(w.key_norm, "self_attn.indexer.k_norm", head_dim, key_norm);
  const Prepare reorder = [interleaved = interleaved_dims](std::vector<float>& values, const std::vector<int64_t>&) {
    const std::vector<float> stored = values;
    for (int i = 0; i < interleaved; ++i) values[i % 2 * interleaved / 2 + i / 2] = stored[i];
  };
  slots.vector(w.key_norm.weight, "self_attn.indexer.k_norm.weight", {head_dim}, reorder);
  slots.vector(w.key_norm.bias, "self_attn.indexer.k_norm.bias", {head_dim}, reorder);
}

int64_t IndexerSpec::scratch_width() const {
  if (!is_there()) return 0;
  return ScratchCutter::width({int64_t{num_heads} * head_dim, head_dim, num_heads});
}

void IndexerSpec::raise_limits(StepLimits& limits) const {
  if (!is_there()) return;
  limits.need(RareOp::kChosenKeys);
  limits.index_size = std::max(limits.index_size, int64_t{num_heads} * head_dim);
  limits.key_choices = std::max(limits.key_choices, has_weights ? 1 : num_heads);
  limits.choice_block = limits.choice_block == 0 ? block : std::min(limits.choice_block, block);
}

IndexerSpec::Rows IndexerSpec::make(Backend& backend, const IndexerWeights& w, const MixerInput& in, const Tensor& from,
                                    const Tensor& scratch) const {
  const int64_t rows = in.h.dim(0), width = int64_t{num_heads} * head_dim;
  ScratchCutter cutter(scratch, rows);
  const Tensor queries = cutter.cut(width), key = cutter.cut(head_dim), weights = cutter.cut(num_heads);
  const Tensor q(queries.data, queries.dtype, {rows, num_heads, head_dim}), k(key.data, key.dtype, {rows, 1, head_dim});
  const auto normalise = [&](const Tensor& x, int64_t stride, const NormSpec& norm, const NormWeights& of) {
    if (!norm.is_there()) return;
    const Tensor weight = vector_of(of.weight, {head_dim});
    if (norm.kind == NormSpec::Kind::kRms) return backend.head_rms_norm(x, stride, weight, norm.eps);
    backend.head_layer_norm(x, stride, weight, vector_of(of.bias, {head_dim}), norm.eps);
  };
  const auto rotate = [&](const Tensor& x, int64_t stride) {
    backend.rope({.x = x,
                  .row_stride = stride,
                  .positions = in.positions.data(),
                  .cos_sin = in.cos_sin,
                  .rotary_dim = static_cast<int>(in.cos_sin.dim(1))});
  };
  backend.linear(from, w.query, queries);
  normalise(q, width, query_norm, w.query_norm);
  rotate(q, width);
  backend.linear(in.h, w.key, key);
  normalise(k, head_dim, key_norm, w.key_norm);
  rotate(k, head_dim);
  if (!has_weights) return {.q = q, .key = key, .weights = {}};
  backend.linear(in.h, w.weights, weights);
  return {.q = q, .key = key, .weights = weights};
}

void IndexerSpec::choose(Backend& backend, const Rows& rows, const MixerInput& in, int kept_from) const {
  backend.choose_keys({.q = rows.q,
                       .weights = rows.weights,
                       .kept_from = kept_from,
                       .top_k = top_k,
                       .block = block,
                       .local = local,
                       .kv = in.kv,
                       .batch = &in.group.attention});
}

}  // namespace serval
