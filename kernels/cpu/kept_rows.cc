// Rows that are keys and values at once: writing, compressing, choosing, attending.
#include <algorithm>
#include <limits>

#include "kernels/attention_split.h"
#include "kernels/base/check.h"
#include "kernels/cpu/choice.h"
#include "kernels/cpu/cpu_backend.h"

namespace serval::cpu {
namespace {

// Where a step's row stands.
struct RowPlace {
  int seq, position;
  const int32_t* blocks;
};
RowPlace place_of(const AttentionBatch& batch, int row) {
  const int seq = sequence_of(batch.row_start, batch.num_seqs, row);
  return {seq, batch.first_pos[seq] + row - batch.row_start[seq], batch.block_table + int64_t{seq} * batch.table_stride};
}
// Rows of a step that belong to a sequence.
int num_owned(const AttentionBatch& batch) {
  return batch.row_start[batch.num_seqs];
}
int num_closed(const KvLayer& kv, int position) {
  return (position + 1) / kv.row_span;
}

}  // namespace

void CpuBackend::write_rows(const WriteRowsArgs& args) {
  const int64_t width = args.x.dim(1), limit = int64_t{args.kv.num_blocks} * args.kv.block_size;
  SERVAL_CHECK(args.kv.row_span == 1 && args.first + width <= args.kv.row_floats, args.kv.row_span, args.first, width,
               args.kv.row_floats);
  for_rows(args.x.dim(0), width, [&](int64_t r) {
    if (args.slots[r] < 0) return;
    SERVAL_CHECK(args.slots[r] < limit, args.slots[r], limit);
    std::copy_n(args.x.as<float>() + r * width, width,
                static_cast<float*>(args.kv.keys) + args.slots[r] * args.kv.row_floats + args.first);
  });
}

void CpuBackend::compress_rows(const CompressRowsArgs& args) {
  const AttentionBatch& batch = *args.batch;
  const int64_t dim = args.norm.num_elements(), width = args.overlaps ? 2 * dim : dim, rotary_dim = args.cos_sin.dim(1);
  const int span = args.to.row_span;
  SERVAL_CHECK(args.from.row_span == 1 && args.first + 2 * width <= args.from.row_floats && rotary_dim <= dim &&
                   args.to_first + dim <= args.to.row_floats && args.bias.num_elements() == span * width &&
                   batch.tree_masks == nullptr,
               args.first, width, args.from.row_floats, rotary_dim, args.to_first, args.to.row_floats, span);
  for_rows(num_owned(batch), 2 * width, [&](int64_t r) {
    const RowPlace place = place_of(batch, static_cast<int>(r));
    if ((place.position + 1) % span != 0) return;
    float* const out =
        args.to.row_at(args.to_batch->block_table + int64_t{place.seq} * args.to_batch->table_stride, place.position) + args.to_first;
    kernels_.compress_rows({.rows = static_cast<const float*>(args.from.keys) + args.first,
                            .blocks = place.blocks,
                            .block_size = args.from.block_size,
                            .row_floats = args.from.row_floats,
                            .last = place.position,
                            .span = span,
                            .overlaps = args.overlaps,
                            .bias = args.bias.as<float>(),
                            .dim = dim,
                            .out = out});
    kernels_.rms_norm(out, nullptr, args.norm.as<float>(), args.eps, out, dim);
    const int64_t first = args.positions[r] - (span - 1);
    SERVAL_CHECK(first >= 0 && first < args.cos_sin.dim(0), first, args.cos_sin.dim(0));
    const float* const cos = args.cos_sin.as<float>() + first * rotary_dim;
    kernels_.rotate_neighbours(out + dim - rotary_dim, cos, cos + rotary_dim / 2, 1, rotary_dim / 2);
  });
}

void CpuBackend::choose_rows(const ChooseRowsArgs& args) {
  const AttentionBatch& batch = *args.batch;
  const int heads = static_cast<int>(args.q.dim(1)), dim = static_cast<int>(args.q.dim(2));
  StepScratch& scratch = step();
  StepScratch::Choice& choice = scratch.choice;
  SERVAL_CHECK(args.first + dim <= args.kv.row_floats && choice.most_per_row >= 1 && args.kv.row_span >= choice.least_block,
               args.first, dim, args.kv.row_floats, choice.most_per_row, args.kv.row_span, choice.least_block);
  choice.per_row = 1;
  choice.block = args.kv.row_span;
  choice.words = tiles_of(tiles_of(scratch.max_model_len, choice.block), 64);
  choice.num_rows = batch.num_rows;
  // As many rows at a time as there are threads: first the scores of all, piece by piece, then the choice of each.
  constexpr int kPiece = 4 * kRowTile;
  const int at_once = pool_.num_threads(), num_rows = num_owned(batch);
  for (int first = 0; first < num_rows; first += at_once) {
    const int rows = std::min(at_once, num_rows - first);
    const auto scores_of = [&](int row) {
      return scratch.index_scores.as<float>() + int64_t{row - first} * choice.most_per_row * scratch.max_model_len;
    };
    int longest = 0;
    for (int row = first; row < first + rows; ++row)
      longest = std::max(longest, num_closed(args.kv, place_of(batch, row).position));
    if (longest <= args.top_k) longest = 0;
    const int64_t parts = tiles_of(longest, kPiece);
    pool_.for_each(rows * parts, [&](int, int64_t item) {
      const int row = first + static_cast<int>(item / parts), begin = static_cast<int>(item % parts) * kPiece;
      const RowPlace place = place_of(batch, row);
      const int count = num_closed(args.kv, place.position), end = std::min(count, begin + kPiece);
      if (count <= args.top_k) return;
      const float* keys[kRowTile];
      for (int at = begin; at < end; at += kRowTile) {
        const int num_keys = std::min(kRowTile, end - at);
        for (int i = 0; i < num_keys; ++i)
          keys[i] = args.kv.row_at(place.blocks, (at + i + 1) * args.kv.row_span - 1) + args.first;
        kernels_.index_rows({.q = args.q.as<float>() + int64_t{row} * heads * dim,
                             .weights = args.weights.as<float>() + int64_t{row} * heads,
                             .heads = heads,
                             .dim = dim,
                             .keys = keys,
                             .num_keys = num_keys,
                             .out = scores_of(row) + at});
      }
    });
    pool_.for_each(rows, [&](int, int64_t item) {
      const int row = first + static_cast<int>(item);
      const int count = num_closed(args.kv, place_of(batch, row).position);
      std::fill_n(choice.of(row, 0), choice.words, count <= args.top_k ? ~uint64_t{0} : 0);
      if (count > args.top_k) choose_best(scores_of(row), count, args.top_k, choice.of(row, 0));
    });
  }
}

void CpuBackend::attend_rows(const AttendRowsArgs& args) {
  const AttentionBatch& batch = *args.near_batch;
  const int64_t heads = args.q.dim(1), dim = args.q.dim(2);
  const bool has_far = args.far.row_floats > 0;
  const StepScratch::Choice& choice = step().choice;
  SERVAL_CHECK(dim <= args.near.row_floats && (!has_far || dim <= args.far.row_floats) && args.window > 0 &&
                   args.sinks.num_elements() == heads && batch.tree_masks == nullptr,
               dim, args.near.row_floats, args.far.row_floats, args.window, args.sinks.num_elements(), heads);
  SERVAL_CHECK(!args.is_chosen || (choice.num_rows == batch.num_rows && choice.per_row == 1), choice.num_rows, batch.num_rows);
  const int64_t parts = (heads + kRowHeads - 1) / kRowHeads;
  pool_.for_each(num_owned(batch) * parts, [&](int, int64_t item) {
    const int row = static_cast<int>(item / parts);
    const int64_t first_head = item % parts * kRowHeads;
    const int count = static_cast<int>(std::min<int64_t>(kRowHeads, heads - first_head));
    const RowPlace place = place_of(batch, row);
    float most[kRowHeads], sum[kRowHeads];
    for (int h = 0; h < count; ++h) {
      most[h] = args.sinks.as<float>()[first_head + h];
      sum[h] = 1;
    }
    float* const out = args.out.as<float>() + (row * heads + first_head) * dim;
    std::fill_n(out, count * dim, 0.0f);
    const float* keys[kRowTile];
    int num_keys = 0;
    const auto attend = [&] {
      kernels_.attend_rows({.q = args.q.as<float>() + (row * heads + first_head) * dim,
                            .heads = count,
                            .dim = static_cast<int>(dim),
                            .keys = keys,
                            .num_keys = num_keys,
                            .scale = args.scale,
                            .most = most,
                            .sum = sum,
                            .out = out});
      num_keys = 0;
    };
    const auto take = [&](const float* key) {
      keys[num_keys++] = key;
      if (num_keys == kRowTile) attend();
    };
    for (int p = first_seen(place.position, args.window); p <= place.position; ++p) take(args.near.row_at(place.blocks, p));
    if (has_far) {
      const int32_t* const blocks = args.far_batch->block_table + int64_t{place.seq} * args.far_batch->table_stride;
      const uint64_t* const chosen = args.is_chosen ? choice.of(row, 0) : nullptr;
      for (int w = 0; w < num_closed(args.far, place.position); ++w)
        if (chosen == nullptr || (chosen[w / 64] >> w % 64 & 1) != 0)
          take(args.far.row_at(blocks, (w + 1) * args.far.row_span - 1));
    }
    if (num_keys > 0) attend();
    for (int h = 0; h < count; ++h) kernels_.scaled_add(out + h * dim, 1 / sum[h], nullptr, out + h * dim, dim);
  });
}

}  // namespace serval::cpu
