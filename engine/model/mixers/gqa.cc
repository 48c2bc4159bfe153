#include "engine/model/mixers/gqa.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/model/mixers/state_parts.h"
#include "kernels/base/check.h"

namespace serval {

namespace {

// Of a layer that reads the keys and values of another.
void prepare_queries(Backend& backend, const QkNormRopeWriteKvArgs& heads) {
  if (heads.q_norm.data != nullptr) backend.head_rms_norm(heads.q, heads.row_stride, heads.q_norm, heads.eps);
  if (heads.rotary_dim > 0)
    backend.rope({.x = heads.q,
                  .row_stride = heads.row_stride,
                  .positions = heads.positions,
                  .cos_sin = heads.cos_sin,
                  .rotary_dim = heads.rotary_dim});
}

// What the fused call cannot do as this layer wants it is done before it, and taken out of it.
void prepare_apart(Backend& backend, const GqaSpec& spec, const GqaWeights& w, const Tensor& query_cos_sin,
                   QkNormRopeWriteKvArgs& heads) {
  const HeadNormPlace place = spec.head_norm_place;
  const int64_t rows = heads.q.dim(0), head_dim = heads.q.dim(2);
  const auto rotate = [&](const Tensor& x, const Tensor& cos_sin) {
    backend.rope({.x = x,
                  .row_stride = heads.row_stride,
                  .positions = heads.positions,
                  .cos_sin = cos_sin,
                  .rotary_dim = static_cast<int>(cos_sin.dim(1))});
  };
  const auto normalise = [&](Tensor x, Tensor& weight, const Buffer& bias) {
    if (spec.has_layer_norms())
      return backend.head_layer_norm(x, heads.row_stride, std::exchange(weight, {}), vector_of(bias, {x.dim(1) * head_dim}),
                                     heads.eps);
    if (place == HeadNormPlace::kAllHeads) x = Tensor(x.data, x.dtype, {rows, 1, x.dim(1) * head_dim});
    if (spec.head_norm.is_there()) backend.head_rms_norm(x, heads.row_stride, std::exchange(weight, {}), heads.eps);
  };
  const bool is_rotated_first = place == HeadNormPlace::kEachRotatedHead;
  if (!is_rotated_first) {
    normalise(heads.q, heads.q_norm, w.q_norm.bias);
    normalise(heads.k, heads.k_norm, w.k_norm.bias);
  }
  if (query_cos_sin.data != nullptr) rotate(heads.q, query_cos_sin);
  else if (heads.rotary_dim > 0) rotate(heads.q, heads.cos_sin);
  if (heads.rotary_dim > 0) rotate(heads.k, heads.cos_sin);
  heads.rotary_dim = 0;
  heads.cos_sin = {};
  if (is_rotated_first) {
    normalise(heads.q, heads.q_norm, w.q_norm.bias);
    normalise(heads.k, heads.k_norm, w.k_norm.bias);
  }
}

}  // namespace

void GqaSpec::list_slots(int64_t hidden, GqaWeights& w, SlotList& slots) const {
  if (has_keys) {
    std::vector<SlotList::Rows> rows = {{"self_attn.q_proj", q_size()},
                                        {"self_attn.k_proj", kv_size()},
                                        {has_value_matrix ? "self_attn.v_proj" : "self_attn.k_proj", value_size()}};
    if (has_gate) {
      SlotList::Rows gate{"self_attn.gate_proj", q_size()};
      for (int64_t behind = 1; behind >= 0 && has_gate_in_queries; --behind)
        for (int64_t h = 0; h < num_heads; ++h) gate.stored.push_back({(2 * h + behind) * head_dim, head_dim});
      rows.insert(rows.begin(), std::move(gate));
      slots.linear(w.qkv, rows, hidden, qkv_bias);
    } else {
      slots.qkv(w.qkv, rows, hidden, qkv_bias, {num_kv_heads, head_dim, interleaved_dims});
    }
  } else {
    slots.linear(w.qkv, {{"self_attn.q_proj", q_size()}}, hidden, qkv_bias);
  }
  if (has_head_gate) {
    std::vector<RowRange> rows;
    for (int64_t i = 0; i < answer_size(); ++i) rows.push_back({i / value_width(), 1});
    slots.some_rows(w.head_gate, "self_attn.g_proj", rows, num_heads, hidden);
  }
  slots.linear(w.output, {{"self_attn.o_proj", hidden}}, answer_size(), output_bias);
  if (head_norm_place == HeadNormPlace::kHeadByHead) {
    slots.head_norms(w.q_norm.weight, "self_attn.q_norm", num_heads, head_dim, interleaved_dims > 0);
    slots.head_norms(w.k_norm.weight, "self_attn.k_norm", num_kv_heads, head_dim, interleaved_dims > 0);
  } else if (has_layer_norms()) {
    // One for all heads, which are normalised each by its own.
    const auto repeat = [&](Buffer& target, const char* tensor, int heads) {
      slots.vectors(target, std::vector<SlotList::NamedShape>(heads, {tensor, {head_dim}}));
    };
    repeat(w.q_norm.weight, "self_attn.q_norm.weight", num_heads);
    repeat(w.q_norm.bias, "self_attn.q_norm.bias", num_heads);
    repeat(w.k_norm.weight, "self_attn.k_norm.weight", num_kv_heads);
    repeat(w.k_norm.bias, "self_attn.k_norm.bias", num_kv_heads);
  } else {
    const bool is_wide = head_norm_place == HeadNormPlace::kAllHeads;
    slots.norm(w.q_norm, "self_attn.q_norm", is_wide ? q_size() : head_dim, head_norm);
    if (has_keys) slots.norm(w.k_norm, "self_attn.k_norm", is_wide ? kv_size() : head_dim, head_norm);
  }
  if (has_sinks) slots.vector(w.sinks, "self_attn.sinks", {num_heads});
  if (!slopes.empty()) slots.constant(w.slopes, slopes);
  if (indexer.is_there()) indexer.list_slots(hidden, hidden, w.indexer, slots);
}

void GqaSpec::shape_kv(KvLayer& kv) const {
  kv.num_kv_heads = num_kv_heads;
  kv.head_dim = kept_dim();
  kv.value_dim = kept_dim() > value_width() ? value_width() : 0;
  kv.has_joint_keys = indexer.is_there();
}

void GqaSpec::raise_limits(StepLimits& limits) const {
  limits.num_heads = std::max(limits.num_heads, num_heads);
  limits.num_kv_heads = std::max(limits.num_kv_heads, num_kv_heads);
  limits.head_dim = std::max(limits.head_dim, kept_dim());
  limits.max_k = std::max(limits.max_k, answer_size());
  if (value_dim > 0) limits.need(RareOp::kNarrowValues);
  if (far) limits.need(RareOp::kFarQueries);
  if (sees_ahead) limits.need(RareOp::kSeesAhead);
  indexer.raise_limits(limits);
}

// Project, normalise heads, rotate, store K and V, attend, project back.
void GqaSpec::run(Backend& backend, const GqaWeights& w, const MixerInput& in) const {
  const int64_t rows = in.h.dim(0);
  const int64_t stride = qkv_size();  // elements between the rows of q, of k and of v
  SERVAL_CHECK(in.group.attention.num_rows == rows, in.group.attention.num_rows, rows);

  const DType type = in.scratch.dtype;
  // [num_rows, gate | q | k | v], then [num_rows, answer_size]
  const Tensor qkv(in.scratch.data, type, {rows, stride});
  const Tensor attended(in.scratch.at(rows * stride), type, {rows, answer_size()});
  backend.linear(in.h, w.qkv, qkv);
  if (qkv_limit > 0) backend.clamp(qkv, qkv_limit);

  const int64_t first = gate_size();
  const Tensor q(qkv.at(first), type, {rows, num_heads, head_dim});
  const auto norm_of = [&](const NormWeights& norm) {
    return head_norm.is_there() && norm.weight.bytes > 0
               ? Tensor(norm.weight.data(), DType::kF32, {static_cast<int64_t>(norm.weight.bytes / sizeof(float))})
               : Tensor();
  };
  QkNormRopeWriteKvArgs heads{.q = q,
                              .row_stride = stride,
                              .q_norm = norm_of(w.q_norm),
                              .k_norm = norm_of(w.k_norm),
                              .eps = head_norm.eps,
                              .positions = in.positions.data(),
                              .cos_sin = in.cos_sin,
                              .rotary_dim = static_cast<int>(in.cos_sin.dim(1)),
                              .slots = in.group.slots,
                              .kv = in.kv};
  AttentionArgs attention{.q = q,
                          .kv = in.kv,
                          .batch = &in.group.attention,
                          .scale = scale,
                          .soft_cap = soft_cap,
                          .window = in.window,
                          .sinks = has_sinks ? Tensor(w.sinks.data(), DType::kF32, {num_heads}) : Tensor(),
                          .slopes = slopes.empty() ? Tensor() : Tensor(w.slopes.data(), DType::kF32, {num_heads}),
                          .is_chosen = indexer.is_there(),
                          .sees_ahead = sees_ahead,
                          .out = attended};
  if (has_keys) {
    heads.k = Tensor(qkv.at(first + q_size()), type, {rows, num_kv_heads, head_dim});
    heads.v = Tensor(qkv.at(first + q_size() + kv_size()), type, {rows, num_kv_heads, value_width()});
    if (value_norm.is_there()) backend.head_rms_norm(heads.v, stride, {}, value_norm.eps);
    if (far) {
      attend_far(backend, heads, in, Tensor(in.scratch.at(rows * (stride + q_size())), type, {rows, far_size()}), attention);
      return backend.linear(attended, w.output, in.out);
    }
    const bool is_plain = head_norm.is_there() && !head_norm.has_weight;
    if (head_norm_place != HeadNormPlace::kEachHead || is_plain || has_layer_norms() || in.query_cos_sin.data != nullptr)
      prepare_apart(backend, *this, w, in.query_cos_sin, heads);
    if (indexer.is_there()) {
      const Tensor room(in.scratch.at(rows * (stride + answer_size())), type,
                        {rows * (indexed_size() + indexer.scratch_width())});
      write_indexed(backend, w, heads, in, room);
    } else {
      backend.qk_norm_rope_write_kv(heads);
    }
    if (in.out.data == nullptr) return;
  } else {
    prepare_queries(backend, heads);
  }
  if (far) {
    attend_far(backend, heads, in, Tensor(in.scratch.at(rows * (stride + answer_size())), type, {rows, far_size()}), attention);
  } else {
    grow_queries(backend, in, q, stride);
    backend.attention(attention, stride);
  }
  if (has_gate)
    backend.gate(Activation::kSigmoid, Tensor(qkv.data, type, {rows, q_size()}), stride, attended, q_size(),
                 attended);
  if (has_head_gate) {
    const Tensor gate(qkv.data, type, {rows, answer_size()});
    backend.linear(in.h, w.head_gate, gate);
    backend.gate(Activation::kSigmoid, gate, answer_size(), attended, answer_size(), attended);
  }
  backend.linear(attended, w.output, in.out);
}

void GqaSpec::write_indexed(Backend& backend, const GqaWeights& w, const QkNormRopeWriteKvArgs& heads, const MixerInput& in,
                            const Tensor& room) const {
  const int64_t rows = in.h.dim(0), stride = indexed_size(), kept = kept_dim(), piece = indexer.kept_dim(num_kv_heads);
  const IndexerSpec::Rows index = indexer.make(
      backend, w.indexer, in, in.h, Tensor(room.at(rows * stride), room.dtype, {rows * indexer.scratch_width()}));
  const auto copy = [&](const Tensor& x, int64_t x_stride, int64_t to, int64_t to_dim) {
    backend.copy_heads({.x = x,
                        .x_row_stride = x_stride,
                        .x_head_stride = x.dim(2),
                        .out = Tensor(room.at(to), room.dtype, {rows, x.dim(1), x.dim(2)}),
                        .out_row_stride = stride,
                        .out_head_stride = to_dim});
  };
  if (heads.q_norm.data != nullptr) backend.head_rms_norm(heads.q, heads.row_stride, heads.q_norm, heads.eps);
  if (heads.k_norm.data != nullptr) backend.head_rms_norm(heads.k, heads.row_stride, heads.k_norm, heads.eps);
  for (const Tensor& x : {heads.q, heads.k})
    backend.rope({.x = x,
                  .row_stride = heads.row_stride,
                  .positions = heads.positions,
                  .cos_sin = heads.cos_sin,
                  .rotary_dim = heads.rotary_dim});
  copy(heads.k, heads.row_stride, 0, kept);
  copy(Tensor(index.key.data, index.key.dtype, {rows, num_kv_heads, piece}), indexer.head_dim, head_dim, kept);
  copy(heads.v, heads.row_stride, num_kv_heads * kept, value_width());
  backend.write_kv({.k = Tensor(room.data, room.dtype, {rows, num_kv_heads, kept}),
                    .v = Tensor(room.at(num_kv_heads * kept), room.dtype, {rows, num_kv_heads, value_width()}),
                    .row_stride = stride,
                    .slots = heads.slots,
                    .kv = heads.kv});
  indexer.choose(backend, index, in, head_dim);
}

// Two queries of each row, and keys as both meet them. Where far keys are kept beside the others, each query is zero where
// the other's keys lie.
void GqaSpec::attend_far(Backend& backend, const QkNormRopeWriteKvArgs& heads, const MixerInput& in, const Tensor& room,
                         AttentionArgs args) const {
  const int64_t rows = room.dim(0), stride = room.dim(1);
  const int kept = kept_dim();
  int64_t used = 0;
  const auto take = [&](int64_t count, int64_t dim) {
    const Tensor x(room.at(used), room.dtype, {rows, count, dim});
    used += count * dim;
    return x;
  };
  const Tensor near_q = take(num_heads, kept), far_q = take(num_heads, kept), key = take(num_kv_heads, kept),
               value = take(num_kv_heads, head_dim);
  const auto part = [&](const Tensor& x, int64_t from) {
    return Tensor(x.at(from), x.dtype, {rows, x.dim(1), int64_t{head_dim}});
  };
  const auto copy = [&](const Tensor& from, const Tensor& to, int64_t to_dim) {
    backend.copy_heads({.x = from,
                        .x_row_stride = heads.row_stride,
                        .x_head_stride = head_dim,
                        .out = to,
                        .out_row_stride = stride,
                        .out_head_stride = to_dim});
  };
  const auto rotate = [&](const Tensor& x, int64_t from, std::span<const int32_t> positions) {
    backend.rope({.x = Tensor(x.at(from), x.dtype, {rows, x.dim(1), x.dim(2)}),
                  .row_stride = stride,
                  .positions = positions.data(),
                  .cos_sin = heads.cos_sin,
                  .rotary_dim = heads.rotary_dim});
  };
  if (heads.q_norm.data != nullptr) backend.head_rms_norm(heads.q, heads.row_stride, heads.q_norm, heads.eps);
  if (heads.k_norm.data != nullptr) backend.head_rms_norm(heads.k, heads.row_stride, heads.k_norm, heads.eps);
  const int64_t far_from = kept - head_dim;
  copy(heads.q, part(near_q, 0), kept);
  copy(heads.q, part(far_q, far_from), kept);
  copy(heads.k, part(key, 0), kept);
  copy(heads.v, value, head_dim);
  if (far->has_own_keys) {
    copy(heads.k, part(key, far_from), kept);
    copy({}, part(near_q, far_from), kept);
    copy({}, part(far_q, 0), kept);
    rotate(key, far_from, in.far_keys);
  }
  rotate(near_q, 0, in.positions);
  rotate(far_q, far_from, in.far_queries);
  rotate(key, 0, in.positions);
  backend.write_kv({.k = key, .v = value, .row_stride = stride, .slots = in.group.slots, .kv = in.kv});
  args.q = near_q;
  args.far_q = far_q;
  args.near = far->near;
  args.num_far = far->num_far;
  args.window = 0;
  backend.attention(args, stride);
}

}  // namespace serval
