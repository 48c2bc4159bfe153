#include "engine/model/mixers/compressed.h"

#include <string>

#include "engine/model/mixers/state_parts.h"
#include "kernels/base/check.h"

namespace serval {

void CompressedAttentionSpec::list_slots(int64_t hidden, CompressedAttentionWeights& w, SlotList& slots) const {
  const int64_t width = int64_t{num_heads} * head_dim, group = width / output_groups;
  slots.linear(w.query_down, {{"self_attn.q_a_proj", query_rank}}, hidden, false);
  slots.norm(w.query_norm, "self_attn.q_a_norm", query_rank, norm);
  slots.linear(w.query, {{"self_attn.q_b_proj", width}}, query_rank, false);
  slots.linear(w.key, {{"self_attn.kv_proj", head_dim}}, hidden, false);
  slots.norm(w.key_norm, "self_attn.kv_norm", head_dim, norm);
  slots.vector(w.sinks, "self_attn.sinks", {num_heads});
  w.output_down.resize(output_groups);
  for (int g = 0; g < output_groups; ++g)
    slots.some_rows(w.output_down[g], "self_attn.o_a_proj", {{int64_t{g} * output_rank, output_rank}},
                    int64_t{output_groups} * output_rank, group);
  slots.linear(w.output, {{"self_attn.o_b_proj", hidden}}, int64_t{output_groups} * output_rank, false);
  if (span == 0) return;
  const auto half = [&](int dim) { return compressor_size(dim) / 2; };
  std::vector<SlotList::Rows> rows = {{"self_attn.compressor.kv_proj", half(head_dim)},
                                      {"self_attn.compressor.gate_proj", half(head_dim)}};
  if (has_index()) {
    rows.push_back({"self_attn.compressor.indexer.kv_proj", half(index_dim)});
    rows.push_back({"self_attn.compressor.indexer.gate_proj", half(index_dim)});
  }
  slots.linear(w.compressed, rows, hidden, false);
  const auto list_compressor = [&](const std::string& module, int dim, CompressorWeights& of) {
    slots.vector(of.bias, module + ".position_bias", {span, half(dim)});
    slots.norm(of.norm, module + ".kv_norm", dim, norm);
  };
  list_compressor("self_attn.compressor", head_dim, w.keys);
  if (!has_index()) return;
  list_compressor("self_attn.compressor.indexer", index_dim, w.index);
  slots.linear(w.index_query, {{"self_attn.compressor.indexer.q_b_proj", int64_t{index_heads} * index_dim}}, query_rank, false);
  slots.unrounded_linear(w.index_weights, {{"self_attn.compressor.indexer.scorer.weights_proj", index_heads}}, hidden, false);
}

// The queries' low rank; queries; key; what is compressed; the index's queries and weights; what attention gives, and of
// low rank.
int64_t CompressedAttentionSpec::scratch_width() const {
  const int64_t width = int64_t{num_heads} * head_dim;
  return ScratchCutter::width({query_rank, width, head_dim, compressed_size(), int64_t{index_heads} * index_dim, index_heads,
                               width, int64_t{output_groups} * output_rank});
}

void CompressedAttentionSpec::shape_kv(KvLayer& kv) const {
  kv.dtype = DType::kF32;
  kv.row_floats = head_dim + compressed_size();
}

void CompressedAttentionSpec::raise_limits(StepLimits& limits) const {
  limits.need(RareOp::kKeptRows);
  limits.need(RareOp::kHeadLinear);
  const int64_t width = int64_t{num_heads} * head_dim;
  limits.max_k = std::max<int64_t>({limits.max_k, query_rank, width / output_groups, int64_t{output_groups} * output_rank});
  if (!has_index()) return;
  limits.key_choices = std::max(limits.key_choices, 1);
  limits.choice_block = limits.choice_block == 0 ? span : std::min(limits.choice_block, span);
}

void CompressedAttentionSpec::compress(Backend& backend, const CompressedAttentionWeights& w, const MixerInput& in) const {
  SERVAL_CHECK(in.far_group != nullptr && in.far_kv.row_span == span, in.far_kv.row_span, span);
  CompressRowsArgs args{.from = in.kv,
                        .first = head_dim,
                        .batch = &in.group.attention,
                        .overlaps = overlaps,
                        .bias = vector_of(w.keys.bias, {span, compressor_size(head_dim) / 2}),
                        .norm = vector_of(w.keys.norm.weight, {head_dim}),
                        .eps = norm.eps,
                        .positions = in.positions.data(),
                        .cos_sin = in.cos_sin,
                        .to = in.far_kv,
                        .to_first = 0,
                        .to_batch = &in.far_group->attention};
  backend.compress_rows(args);
  if (!has_index()) return;
  args.first += compressor_size(head_dim);
  args.bias = vector_of(w.index.bias, {span, compressor_size(index_dim) / 2});
  args.norm = vector_of(w.index.norm.weight, {index_dim});
  args.to_first = head_dim;
  backend.compress_rows(args);
}

// Project queries and the key, normalise, rotate the last of their numbers; keep the key and what is to be compressed of the
// row; compress the windows that close; attend, and rotate back what of the values was rotated; project each group of heads,
// and all together.
void CompressedAttentionSpec::run(Backend& backend, const CompressedAttentionWeights& w, const MixerInput& in) const {
  const int64_t rows = in.h.dim(0), width = int64_t{num_heads} * head_dim, low_width = int64_t{output_groups} * output_rank;
  const DType type = in.scratch.dtype;
  ScratchCutter scratch(in.scratch, rows);
  const Tensor low = scratch.cut(query_rank), queries = scratch.cut(width), key = scratch.cut(head_dim),
               compressed = scratch.cut(compressed_size()), index_queries = scratch.cut(int64_t{index_heads} * index_dim),
               index_weights = scratch.cut(index_heads), attended = scratch.cut(width), answers = scratch.cut(low_width);
  const auto rotary_dim = static_cast<int>(in.cos_sin.dim(1));
  const auto as_heads = [&](const Tensor& x, int64_t heads, int64_t dim) { return Tensor(x.data, type, {rows, heads, dim}); };
  const auto rotate = [&](const Tensor& x, int64_t heads, int64_t dim, bool turns_back = false) {
    backend.rope({.x = Tensor(x.at(dim - rotary_dim), type, {rows, heads, dim}),
                  .row_stride = heads * dim,
                  .positions = in.positions.data(),
                  .cos_sin = in.cos_sin,
                  .rotary_dim = rotary_dim,
                  .has_neighbour_pairs = true,
                  .turns_back = turns_back});
  };

  backend.linear(in.h, w.query_down, low);
  backend.add_rms_norm(low, {}, vector_of(w.query_norm.weight, {query_rank}), norm.eps, low);
  backend.linear(low, w.query, queries);
  backend.head_rms_norm(as_heads(queries, num_heads, head_dim), width, {}, norm.eps);
  rotate(queries, num_heads, head_dim);
  backend.linear(in.h, w.key, key);
  backend.add_rms_norm(key, {}, vector_of(w.key_norm.weight, {head_dim}), norm.eps, key);
  rotate(key, 1, head_dim);
  backend.write_rows({.x = key, .first = 0, .slots = in.group.slots, .kv = in.kv});
  if (span > 0) {
    backend.linear(in.h, w.compressed, compressed);
    backend.write_rows({.x = compressed, .first = head_dim, .slots = in.group.slots, .kv = in.kv});
    compress(backend, w, in);
  }
  if (has_index()) {
    backend.linear(low, w.index_query, index_queries);
    rotate(index_queries, index_heads, index_dim);
    backend.linear(in.h, w.index_weights, index_weights);
    backend.choose_rows({.q = as_heads(index_queries, index_heads, index_dim),
                         .weights = index_weights,
                         .first = head_dim,
                         .top_k = top_k,
                         .kv = in.far_kv,
                         .batch = &in.far_group->attention});
  }
  backend.attend_rows({.q = as_heads(queries, num_heads, head_dim),
                       .near = in.kv,
                       .near_batch = &in.group.attention,
                       .window = window,
                       .far = in.far_kv,
                       .far_batch = in.far_group == nullptr ? nullptr : &in.far_group->attention,
                       .is_chosen = has_index(),
                       .scale = scale,
                       .sinks = vector_of(w.sinks, {num_heads}),
                       .out = attended});
  rotate(attended, num_heads, head_dim, true);
  backend.head_linear({.x = as_heads(attended, output_groups, width / output_groups),
                       .x_row_stride = width,
                       .x_head_stride = width / output_groups,
                       .heads = w.output_down,
                       .out = as_heads(answers, output_groups, output_rank),
                       .out_row_stride = low_width,
                       .out_head_stride = output_rank});
  backend.linear(answers, w.output, in.out);
}

}  // namespace serval
