#include "engine/model/mixers/mla.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace serval {
namespace {

// The scratch's pieces begin where a vector may.
int64_t aligned(int64_t elements) {
  return (elements + 7) / 8 * 8;
}

}  // namespace

void MlaSpec::list_slots(int64_t hidden, MlaWeights& w, SlotList& slots) const {
  const int64_t head = plain_dim + rotary_dim, half = rotary_dim / 2;
  // Of `count` rows that rotate from `first` on: the pairs' first numbers, then the second.
  const auto add_rotated = [&](std::vector<RowRange>& rows, int64_t first) {
    if (!has_neighbour_pairs) return rows.push_back({first, rotary_dim});
    rows.push_back({first, half, 2});
    rows.push_back({first + 1, half, 2});
  };
  const std::string_view query = query_rank > 0 ? "self_attn.q_b_proj" : "self_attn.q_proj";
  const int64_t query_in = query_rank > 0 ? query_rank : hidden;
  if (query_rank > 0) {
    slots.linear(w.query_down, {{"self_attn.q_a_proj", query_rank}}, hidden, has_bias);
    slots.norm(w.query_norm, "self_attn.q_a_layernorm", query_rank, norm);
  }
  std::vector<RowRange> plain;
  for (int h = 0; h < num_heads; ++h) plain.push_back({h * head, plain_dim});
  slots.some_rows(w.query, query, plain, num_heads * head, query_in);
  w.query_rot.resize(num_heads);
  for (int h = 0; h < num_heads; ++h) {
    std::vector<RowRange> rotated;
    add_rotated(rotated, h * head + plain_dim);
    slots.some_rows(w.query_rot[h], query, rotated, num_heads * head, query_in);
  }
  std::vector<RowRange> latent = {{0, latent_dim}};
  add_rotated(latent, latent_dim);
  slots.reordered_linear(w.latent, "self_attn.kv_a_proj_with_mqa", latent, hidden, has_bias);
  slots.norm(w.latent_norm, "self_attn.kv_a_layernorm", latent_dim, norm);
  const int64_t up = plain_dim + value_dim;
  w.key_up.resize(num_heads);
  w.value_up.resize(num_heads);
  for (int h = 0; h < num_heads; ++h) {
    slots.some_turned_rows(w.key_up[h], "self_attn.kv_b_proj", {{h * up, plain_dim}}, num_heads * up, latent_dim);
    slots.some_rows(w.value_up[h], "self_attn.kv_b_proj", {{h * up + plain_dim, value_dim}}, num_heads * up,
                    latent_dim);
  }
  if (has_head_gate) {
    std::vector<RowRange> rows;
    for (int64_t i = 0; i < int64_t{num_heads} * value_dim; ++i) rows.push_back({i / value_dim, 1});
    slots.some_rows(w.gate, "self_attn.g_proj", rows, num_heads, hidden);
  }
  slots.linear(w.output, {{"self_attn.o_proj", hidden}}, int64_t{num_heads} * value_dim, has_bias);
  if (indexer.is_there()) indexer.list_slots(hidden, query_in, w.indexer, slots);
}

int64_t MlaSpec::scratch_width() const {
  return aligned(query_rank) + aligned(int64_t{num_heads} * std::max(plain_dim, value_dim)) + aligned(key_dim()) +
         aligned(int64_t{num_heads} * key_dim()) + aligned(int64_t{num_heads} * std::max(latent_dim, value_dim)) +
         (indexer.is_there() ? aligned(kept_dim()) + indexer.scratch_width() : 0);
}

void MlaSpec::shape_kv(KvLayer& kv) const {
  kv.num_kv_heads = 1;
  kv.head_dim = kept_dim();
  kv.value_dim = latent_dim;
  kv.has_joint_keys = true;
}

void MlaSpec::raise_limits(StepLimits& limits) const {
  limits.need(RareOp::kHeadLinear);
  limits.num_heads = std::max(limits.num_heads, num_heads);
  limits.num_kv_heads = std::max(limits.num_kv_heads, 1);
  limits.head_dim = std::max(limits.head_dim, kept_dim());
  indexer.raise_limits(limits);
  limits.max_k = std::max<int64_t>({limits.max_k, query_rank, latent_dim, plain_dim, int64_t{num_heads} * value_dim});
}

// Project queries, and what they would be multiplied with of the latent into them; project the latent, normalise and
// rotate, store it; attend; make each head's values of the latents that it attended to, and project back.
void MlaSpec::run(Backend& backend, const MlaWeights& w, const MixerInput& in) const {
  const int64_t rows = in.h.dim(0), heads = num_heads, key = key_dim();
  SERVAL_CHECK(in.group.attention.num_rows == rows, in.group.attention.num_rows, rows);
  const DType type = in.scratch.dtype;
  int64_t used = 0;  // elements of the scratch
  const auto cut = [&](int64_t width) {
    const Tensor piece(in.scratch.at(used), type, {rows, width});
    used += rows * aligned(width);
    return piece;
  };
  const Tensor low = cut(query_rank), narrow = cut(heads * std::max(plain_dim, value_dim)), latent = cut(key),
               queries = cut(heads * key), attended = cut(heads * std::max(latent_dim, value_dim));
  const auto as_heads = [&](const Tensor& at, int64_t first, int64_t count, int64_t width) {
    return Tensor(at.at(first), type, {rows, count, width});
  };
  const auto norm_weight = [](const NormWeights& norm, int64_t dim) {
    return Tensor(norm.weight.data(), DType::kF32, {dim});
  };
  const auto rotate = [&](const Tensor& x, int64_t row_stride) {
    backend.rope({.x = x,
                  .row_stride = row_stride,
                  .positions = in.positions.data(),
                  .cos_sin = in.cos_sin,
                  .rotary_dim = rotary_dim});
  };

  Tensor from = in.h;  // what queries are made of
  if (query_rank > 0) {
    backend.linear(in.h, w.query_down, low);
    backend.add_rms_norm(low, {}, norm_weight(w.query_norm, query_rank), norm.eps, low);
    from = low;
  }
  backend.linear(from, w.query, Tensor(narrow.data, type, {rows, heads * plain_dim}));
  backend.head_linear({.x = as_heads(narrow, 0, heads, plain_dim),
                       .x_row_stride = heads * plain_dim,
                       .x_head_stride = plain_dim,
                       .heads = w.key_up,
                       .out = as_heads(queries, 0, heads, latent_dim),
                       .out_row_stride = heads * key,
                       .out_head_stride = key});
  backend.head_linear({.x = Tensor(from.data, type, {rows, heads, from.dim(1)}),
                       .x_row_stride = from.dim(1),
                       .x_head_stride = 0,
                       .heads = w.query_rot,
                       .out = as_heads(queries, latent_dim, heads, rotary_dim),
                       .out_row_stride = heads * key,
                       .out_head_stride = key});
  if (in.cos_sin.data != nullptr) rotate(as_heads(queries, latent_dim, heads, key), heads * key);

  grow_queries(backend, in, as_heads(queries, 0, heads, key), heads * key);

  backend.linear(in.h, w.latent, latent);
  backend.head_rms_norm(as_heads(latent, 0, 1, latent_dim), key, norm_weight(w.latent_norm, latent_dim), norm.eps);
  if (in.cos_sin.data != nullptr) rotate(as_heads(latent, latent_dim, 1, key), key);
  WriteKvArgs written{.k = as_heads(latent, 0, 1, key),
                      .v = as_heads(latent, 0, 1, latent_dim),
                      .row_stride = key,
                      .slots = in.group.slots,
                      .kv = in.kv};
  if (indexer.is_there()) {
    const int64_t kept = kept_dim();
    const Tensor both = cut(kept);
    const Tensor room(in.scratch.at(used), type, {rows * indexer.scratch_width()});
    const IndexerSpec::Rows index = indexer.make(backend, w.indexer, in, from, room);
    const auto copy = [&](const Tensor& x, int64_t to) {
      backend.copy_heads({.x = Tensor(x.data, type, {rows, 1, x.dim(1)}),
                          .x_row_stride = x.dim(1),
                          .x_head_stride = 0,
                          .out = as_heads(both, to, 1, x.dim(1)),
                          .out_row_stride = kept,
                          .out_head_stride = 0});
    };
    copy(latent, 0);
    copy(index.key, key);
    written.k = as_heads(both, 0, 1, kept);
    written.v = as_heads(both, 0, 1, latent_dim);
    written.row_stride = kept;
    backend.write_kv(written);
    indexer.choose(backend, index, in, static_cast<int>(key));
  } else {
    backend.write_kv(written);
  }
  backend.attention({.q = as_heads(queries, 0, heads, key),
                     .kv = in.kv,
                     .batch = &in.group.attention,
                     .scale = scale,
                     .window = in.window,
                     .is_chosen = attends_to_chosen,
                     .out = Tensor(attended.data, type, {rows, heads * latent_dim})},
                    heads * key);
  backend.head_linear({.x = as_heads(attended, 0, heads, latent_dim),
                       .x_row_stride = heads * latent_dim,
                       .x_head_stride = latent_dim,
                       .heads = w.value_up,
                       .out = as_heads(narrow, 0, heads, value_dim),
                       .out_row_stride = heads * value_dim,
                       .out_head_stride = value_dim});
  const Tensor answers(narrow.data, type, {rows, heads * value_dim});
  if (has_head_gate) {
    const Tensor gate(attended.data, type, {rows, heads * value_dim});
    backend.linear(in.h, w.gate, gate);
    backend.gate(Activation::kSigmoid, gate, heads * value_dim, answers, heads * value_dim, answers);
  }
  backend.linear(answers, w.output, in.out);
}

}  // namespace serval
