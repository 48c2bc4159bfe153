// Keys and values in blocks: writing, copying, attending. The layout inside a block is kernel_table.h's.
// Attention runs over the tasks of attention_tasks.h.
#include <atomic>
#include <bit>
#include <cstring>
#include <limits>

#include "kernels/attention_split.h"
#include "kernels/base/check.h"
#include "kernels/cpu/choice.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/float_bits.h"

namespace serval::cpu {
namespace {

constexpr int kMaxHeadDim = 1024;  // of a key; DeepSeek's latent attention with its index takes 704

void check_layout(const KvLayer& kv) {
  SERVAL_CHECK(kv.dtype != DType::kF16 && kv.dtype != DType::kI32, dtype_name(kv.dtype));
  SERVAL_CHECK(kv.block_size >= kMinBlock && std::has_single_bit(static_cast<unsigned>(kv.block_size)),
               kv.block_size);
  SERVAL_CHECK(kv.head_dim > 0 && kv.head_dim % 2 == 0 && kv.head_dim <= kMaxHeadDim && kv.value_dim % 2 == 0 &&
                   kv.value_width() <= kv.head_dim,
               kv.head_dim, kv.value_dim);
}

bool is_branch(const AttentionBatch& batch, int seq) {
  return batch.tree_masks != nullptr && batch.tree_masks[seq] != 0;
}
// The first of the blocks that gather_tail() makes.
int tail_block_of(const KvLayer& kv, const AttentionBatch& batch, int seq) {
  return is_branch(batch, seq) ? batch.tree_start[seq] / kv.block_size : std::numeric_limits<int>::max();
}

int rows_per_task(int heads_per_kv) {
  return std::max(1, kTaskVectors / heads_per_kv);
}

// Whether two dimensions of a key, and two positions of a value, lie side by side.
bool has_pairs(DType dtype) {
  return dtype == DType::kBF16 || dtype == DType::kI4;
}

// Number `place` of those that share bytes in twos.
int half_byte(const uint8_t* bytes, int place) {
  return bytes[place / 2] >> place % 2 * 4 & 15;
}
void set_half_byte(uint8_t* bytes, int place, int code) {
  const int shift = place % 2 * 4;
  bytes[place / 2] = static_cast<uint8_t>((bytes[place / 2] & ~(15 << shift)) | code << shift);
}

// One row's keys or values into position `offset` of its block: element d of the head goes to place(d).
template <class Place>
void write_head(const KvLayer& kv, const float* from, int width, int offset, std::byte* head, const Place& place) {
  const auto put = [&](auto* to, const auto& round) {
    for (int d = 0; d < width; ++d) to[place(d)] = round(from[d]);
  };
  uint8_t codes[kMaxHeadDim];
  std::byte* const scale = head + kv.block_size * kv.number_bytes(width) + offset * KvLayer::kScaleBytes;
  switch (kv.dtype) {
    case DType::kF32:
      return put(reinterpret_cast<float*>(head), [](float x) { return x; });
    case DType::kF8:
      return put(reinterpret_cast<uint8_t*>(head), float_to_fp8);
    case DType::kI8: {
      const float rounded = round_row(from, width, reinterpret_cast<int8_t*>(codes));
      for (int d = 0; d < width; ++d) head[place(d)] = std::byte{codes[d]};
      std::memcpy(scale, &rounded, sizeof rounded);
      return;
    }
    case DType::kI4: {
      const uint32_t rounded = round_between(from, width, codes);
      for (int d = 0; d < width; ++d) set_half_byte(reinterpret_cast<uint8_t*>(head), place(d), codes[d]);
      std::memcpy(scale, &rounded, sizeof rounded);
      return;
    }
    default:
      return put(reinterpret_cast<uint16_t*>(head), float_to_bf16);
  }
}

decltype(KernelTable::attend_f32) attend_of(const KernelTable& kernels, DType dtype) {
  switch (dtype) {
    case DType::kF32: return kernels.attend_f32;
    case DType::kF8: return kernels.attend_fp8;
    case DType::kI8: return kernels.attend_int8;
    case DType::kI4: return kernels.attend_int4;
    default: return kernels.attend_bf16;
  }
}

// One position of one KV head from one block to another; positions count modulo the block.
void copy_position(const KvLayer& kv, const std::byte* from_keys, const std::byte* from_values, int from,
                   std::byte* to_keys, std::byte* to_values, int to) {
  from &= kv.block_size - 1;
  to &= kv.block_size - 1;
  const size_t key_bytes = kv.number_bytes(kv.head_dim), value_bytes = kv.number_bytes(kv.value_width());
  // A key is a column of a lane a row: one dimension of a float or a byte, two of bf16 or of half bytes.
  const int lane = kv.dtype == DType::kF32 || kv.dtype == DType::kBF16 ? 4 : 1;
  const int key_rows = static_cast<int>(key_bytes) / lane;
  for (int i = 0; i < key_rows; ++i)
    std::memcpy(to_keys + (i * kv.block_size + to) * lane, from_keys + (i * kv.block_size + from) * lane, lane);
  if (kv.has_scales()) {
    const auto copy_scale = [&](std::byte* side_to, const std::byte* side_from, size_t bytes) {
      std::memcpy(side_to + kv.block_size * bytes + to * KvLayer::kScaleBytes,
                  side_from + kv.block_size * bytes + from * KvLayer::kScaleBytes, KvLayer::kScaleBytes);
    };
    copy_scale(to_keys, from_keys, key_bytes);
    copy_scale(to_values, from_values, value_bytes);
  }
  if (!has_pairs(kv.dtype)) {
    std::memmove(to_values + to * value_bytes, from_values + from * value_bytes, value_bytes);
    return;
  }
  const int value_dim = kv.value_width();
  const auto place = [&](int offset, int d) { return (offset / 2 * value_dim + d) * 2 + offset % 2; };
  for (int d = 0; d < value_dim; ++d) {
    if (kv.dtype == DType::kI4)
      set_half_byte(reinterpret_cast<uint8_t*>(to_values), place(to, d),
                    half_byte(reinterpret_cast<const uint8_t*>(from_values), place(from, d)));
    else
      std::memcpy(to_values + place(to, d) * sizeof(uint16_t), from_values + place(from, d) * sizeof(uint16_t), sizeof(uint16_t));
  }
}

}  // namespace

void CpuBackend::write_kv(const WriteKvArgs& args) {
  check_layout(args.kv);
  const int64_t rows = args.k.dim(0);
  const int heads = args.kv.num_kv_heads, head_dim = args.kv.head_dim, value_dim = args.kv.value_width(),
            block_size = args.kv.block_size;
  SERVAL_CHECK(args.k.dim(1) == heads && args.k.dim(2) == head_dim && args.v.dim(1) == heads &&
                   args.v.dim(2) == value_dim,
               args.k.dim(1), heads, args.k.dim(2), head_dim, args.v.dim(2), value_dim);
  const size_t key_bytes = args.kv.key_bytes() / heads, value_bytes = args.kv.value_bytes() / heads;
  const int64_t limit = int64_t{args.kv.num_blocks} * block_size;
  const int block_shift = std::countr_zero(static_cast<unsigned>(block_size));
  // A line of keys holds one or two dimensions of neighbouring positions: rows go in groups, over one KV
  // head, so that threads do not write to the same lines.
  constexpr int64_t kGroupRows = 16;
  const int64_t groups = (rows + kGroupRows - 1) / kGroupRows;
  // Values of two positions may share bytes: a row whose place is behind that of the row before it, in one pair, goes with it.
  const auto begin_of = [&](int64_t row) {
    const bool shares = row > 0 && row < rows && args.slots[row] % 2 != 0 && args.slots[row - 1] == args.slots[row] - 1;
    return shares ? row + 1 : std::min(row, rows);
  };
  const auto write_row = [&](int64_t r, int64_t h) {
    const int32_t slot = args.slots[r];
    if (slot < 0) return;
    SERVAL_CHECK(slot < limit, slot, limit);
    const int offset = slot & (block_size - 1);
    const size_t head = static_cast<size_t>(slot >> block_shift) * heads + h;
    const float* const k = args.k.as<float>() + r * args.row_stride + h * head_dim;
    const float* const v = args.v.as<float>() + r * args.row_stride + h * value_dim;
    std::byte* const key_head = static_cast<std::byte*>(args.kv.keys) + head * key_bytes;
    std::byte* const value_head = static_cast<std::byte*>(args.kv.values) + head * value_bytes;
    if (has_pairs(args.kv.dtype)) {
      write_head(args.kv, k, head_dim, offset, key_head, [&](int d) { return (d / 2 * block_size + offset) * 2 + d % 2; });
      write_head(args.kv, v, value_dim, offset, value_head,
                 [&](int d) { return (offset / 2 * value_dim + d) * 2 + offset % 2; });
    } else {
      write_head(args.kv, k, head_dim, offset, key_head, [&](int d) { return d * block_size + offset; });
      write_head(args.kv, v, value_dim, offset, value_head, [&](int d) { return offset * value_dim + d; });
    }
  };
  for_rows(groups * heads, 4 * kGroupRows * head_dim, [&](int64_t i) {
    const int64_t first = i / heads * kGroupRows;
    for (int64_t r = begin_of(first), end = begin_of(first + kGroupRows); r < end; ++r) write_row(r, i % heads);
  });
}

void CpuBackend::copy_kv_blocks(const KvLayer& kv, std::span<const BlockCopy> copies) {
  for (const BlockCopy& copy : copies) {
    SERVAL_CHECK(copy.from >= 0 && copy.from < kv.num_blocks && copy.to >= 0 && copy.to < kv.num_blocks &&
                     copy.from != copy.to,
                 copy.from, copy.to, kv.num_blocks);
    // Positions interleave inside a block, and nobody reads those beyond num_tokens before they are written:
    // the whole block is the cheapest superset.
    for (const auto& [side, bytes] : {std::pair{kv.keys, kv.key_bytes()}, {kv.values, kv.value_bytes()}}) {
      std::memcpy(static_cast<std::byte*>(side) + copy.to * bytes,
                  static_cast<std::byte*>(side) + copy.from * bytes, bytes);
    }
  }
}

void CpuBackend::move_kv(const KvLayer& kv, std::span<const KvMove> moves) {
  check_layout(kv);
  const int shift = std::countr_zero(static_cast<unsigned>(kv.block_size));
  for (const KvMove& move : moves) {
    SERVAL_CHECK(move.from >= 0 && move.from < int64_t{kv.num_blocks} << shift && move.to >= 0 &&
                     move.to < int64_t{kv.num_blocks} << shift,
                 move.from, move.to, kv.num_blocks);
    for (int h = 0; h < kv.num_kv_heads; ++h) {
      const auto side_of = [&](void* side, size_t block_bytes, int32_t place) {
        return static_cast<std::byte*>(side) + (place >> shift) * block_bytes + h * (block_bytes / kv.num_kv_heads);
      };
      const auto key_of = [&](int32_t place) { return side_of(kv.keys, kv.key_bytes(), place); };
      const auto value_of = [&](int32_t place) { return side_of(kv.values, kv.value_bytes(), place); };
      copy_position(kv, key_of(move.from), value_of(move.from), move.from, key_of(move.to), value_of(move.to), move.to);
    }
  }
}

const char* CpuBackend::gather_tail(int worker, const KvLayer& kv, const AttentionBatch& batch, int seq, int kv_head,
                                    int window) {
  if (!is_branch(batch, seq)) return nullptr;
  StepScratch& scratch = step();
  std::byte* const tail = scratch.branch_tails.as<std::byte>() + worker * scratch.branch_tail_bytes;
  const int shift = std::countr_zero(static_cast<unsigned>(kv.block_size)), last = batch.first_pos[seq];
  const int first_block = batch.tree_start[seq] / kv.block_size;
  const size_t key_bytes = kv.key_bytes() / kv.num_kv_heads, value_bytes = kv.value_bytes() / kv.num_kv_heads;
  SERVAL_CHECK(((last >> shift) - first_block + 1) * (key_bytes + value_bytes) <= scratch.branch_tail_bytes, last,
               first_block, kv.block_size);
  const int32_t* const blocks = batch.block_table + int64_t{seq} * batch.table_stride;
  for (int p = first_seen(last, window); p <= last; ++p) {
    if (p >> shift < first_block) p = first_block << shift;
    const int place = branch_place(batch.tree_masks[seq], batch.tree_start[seq], p);
    const size_t head = int64_t{blocks[place >> shift]} * kv.num_kv_heads + kv_head;
    std::byte* const to = tail + ((p >> shift) - first_block) * (key_bytes + value_bytes);
    copy_position(kv, static_cast<const std::byte*>(kv.keys) + head * key_bytes,
                  static_cast<const std::byte*>(kv.values) + head * value_bytes, place, to, to + key_bytes, p);
  }
  return reinterpret_cast<const char*>(tail);
}

void CpuBackend::attention(const AttentionArgs& args, int64_t q_row_stride) {
  const KvLayer& kv = args.kv;
  const AttentionBatch& batch = *args.batch;
  check_layout(kv);
  const int num_heads = static_cast<int>(args.q.dim(1)), head_dim = static_cast<int>(args.q.dim(2)),
            value_dim = kv.value_width();
  SERVAL_CHECK(num_heads % kv.num_kv_heads == 0 && head_dim <= kv.head_dim && head_dim % 2 == 0 && value_dim <= head_dim,
               num_heads, kv.num_kv_heads, head_dim, kv.head_dim, value_dim);
  const int heads = num_heads / kv.num_kv_heads;
  // The rows of one call that see ahead see up to one position (AttendArgs::seen_end), which a window gives each its own.
  const int task_rows = args.sees_ahead && args.window > 0 ? 1 : rows_per_task(heads);
  StepScratch& scratch = step();
  SERVAL_CHECK(attend_floats(heads, head_dim) <= scratch.attend_floats, heads, head_dim);
  SERVAL_CHECK(num_heads <= scratch.max_heads && num_heads * (head_dim + kPartialExtra) <= scratch.slot_floats,
               num_heads, head_dim);
  if (batch.num_rows == 0) return;

  const StepScratch::Choice& choice = scratch.choice;
  SERVAL_CHECK(!args.is_chosen || (choice.num_rows == batch.num_rows && (choice.per_row == 1 || choice.per_row == kv.num_kv_heads)),
               choice.num_rows, batch.num_rows, choice.per_row, kv.num_kv_heads);
  const bool has_far = args.far_q.data != nullptr;
  SERVAL_CHECK(!has_far || (args.near > 0 && args.window == 0), args.near, args.window);
  SERVAL_CHECK(!args.is_chosen || !kv.has_scales(), dtype_name(kv.dtype));
  // A claim should be worth some microseconds (about 20 multiply-adds a nanosecond).
  constexpr int64_t kClaimNs = 3000;
  SERVAL_CHECK(!args.sees_ahead || (args.window >= 0 && !has_far && args.slopes.data == nullptr && !args.is_chosen && batch.tree_masks == nullptr),
               args.window);
  scratch.tasks.plan(batch, kv.num_kv_heads, args.window, args.sees_ahead, task_rows,
                     kClaimNs * 10 / (int64_t{heads} * head_dim) + 1, has_far ? 1 : pool_.num_threads());
  const std::span<const AttentionTasks::Task> tasks = scratch.tasks.tasks();
  const std::span<const AttentionTasks::Split> splits = scratch.tasks.splits();
  const std::span<const int32_t> claims = scratch.tasks.claims();
  // [split][KV head]: tasks that are not done; the last one merges.
  auto* const pending = scratch.pending.as<int32_t>();
  for (size_t i = 0; i < splits.size(); ++i)
    std::fill_n(pending + i * kv.num_kv_heads, kv.num_kv_heads, splits[i].num_tasks);

  SERVAL_CHECK(args.sinks.data == nullptr || args.sinks.num_elements() == num_heads,
               args.sinks.num_elements());
  SERVAL_CHECK(args.slopes.data == nullptr || args.slopes.num_elements() == num_heads,
               args.slopes.num_elements());
  const float* const sinks = args.sinks.as<float>();
  const float* const slopes = args.slopes.as<float>();
  const auto attend = attend_of(kernels_, kv.dtype);
  const int64_t out_stride = int64_t{num_heads} * value_dim, vector_floats = value_dim + kPartialExtra;
  const auto out_of = [&](int64_t row, int kv_head) {
    return args.out.as<float>() + row * out_stride + int64_t{kv_head} * heads * value_dim;
  };
  // What the chunks of a split leave: [chunk][KV head][row][head][vector_floats].
  const auto partials_of = [&](const AttentionTasks::Split& split, int chunk, int kv_head) {
    return scratch.partials.as<float>() +
           ((split.slot + int64_t{chunk - split.first_chunk} * split.num_rows) * num_heads +
            int64_t{kv_head} * split.num_rows * heads) *
               vector_floats;
  };
  const auto merge = [&](const AttentionTasks::Split& split, int kv_head) {
    const float* const first = partials_of(split, split.first_chunk, kv_head);
    for (int r = 0; r < split.num_rows; ++r) {
      float* const out = out_of(batch.row_start[split.seq] + split.first_row + r, kv_head);
      for (int h = 0; h < heads; ++h)
        kernels_.merge_chunks(first + (r * heads + h) * vector_floats,
                              split.num_rows * num_heads * vector_floats, split.num_chunks, value_dim,
                              sinks == nullptr ? nullptr : sinks + kv_head * heads + h, out + h * value_dim);
    }
  };
  const auto run_task = [&](int worker, const AttentionTasks::Task& task, int kv_head) {
    const AttentionTasks::Split* const split = task.split < 0 ? nullptr : &splits[task.split];
    const int64_t row = batch.row_start[task.seq] + task.first_row;
    attend({.q = args.q.as<float>() + row * q_row_stride + int64_t{kv_head} * heads * head_dim,
            .far_q = has_far ? args.far_q.as<float>() + row * q_row_stride + int64_t{kv_head} * heads * head_dim : nullptr,
            .near = args.near,
            .num_far = args.num_far,
            .q_stride = q_row_stride,
            .out = out_of(row, kv_head),
            .out_stride = out_stride,
            .partials = split == nullptr ? nullptr : partials_of(*split, task.first_chunk, kv_head),
            .partial_stride = task.num_rows * num_heads * vector_floats,
            .num_rows = task.num_rows,
            .first_pos = batch.first_pos[task.seq] + task.first_row,
            .seen_end = args.sees_ahead ? seen_ahead(batch, task.seq, batch.first_pos[task.seq] + task.first_row, args.window) : 0,
            .begin = task.first_chunk * kChunk,
            .end = (task.first_chunk + task.num_chunks) * kChunk,
            .heads = heads,
            .head_dim = head_dim,
            .kept_dim = kv.head_dim,
            .value_dim = value_dim,
            .keys = static_cast<const char*>(kv.keys),
            .values = static_cast<const char*>(kv.values),
            .key_block_bytes = kv.key_bytes(),
            .value_block_bytes = kv.value_bytes(),
            .key_offset = kv_head * (kv.key_bytes() / kv.num_kv_heads),
            .value_offset = kv_head * (kv.value_bytes() / kv.num_kv_heads),
            .blocks = batch.block_table + int64_t{task.seq} * batch.table_stride,
            .tail_block = tail_block_of(kv, batch, task.seq),
            .tail = gather_tail(worker, kv, batch, task.seq, kv_head, args.window),
            .block_shift = std::countr_zero(static_cast<unsigned>(kv.block_size)),
            .scale = args.scale,
            .soft_cap = args.soft_cap,
            .window = args.window,
            .sinks = sinks == nullptr ? nullptr : sinks + kv_head * heads,
            .slopes = slopes == nullptr ? nullptr : slopes + kv_head * heads,
            .chosen = args.is_chosen ? choice.of(row, choice.per_row == 1 ? 0 : kv_head) : nullptr,
            .chosen_words = choice.per_row * choice.words,
            .chosen_block = choice.block,
            .scratch = scratch.attend.as<float>() + worker * scratch.attend_floats});
    if (split == nullptr) return;
    std::atomic_ref<int32_t> left(pending[int64_t{task.split} * kv.num_kv_heads + kv_head]);
    if (left.fetch_sub(1, std::memory_order_acq_rel) == 1) merge(*split, kv_head);
  };
  // Head by head: the blocks of a prompt's rows share its keys and values in the cache.
  const auto num_claims = static_cast<int64_t>(claims.size()) - 1;
  pool_.for_each(num_claims * kv.num_kv_heads, [&](int worker, int64_t item) {
    const int64_t claim = item % num_claims;
    for (int32_t t = claims[claim]; t < claims[claim + 1]; ++t)
      run_task(worker, tasks[t], static_cast<int>(item / num_claims));
  });
}

namespace {

// Scores of positions as those of blocks, in place; returns how many.
int score_blocks(float* scores, int count, int block, int local) {
  if (block == 1 && local == 0) return count;
  const int blocks = (count + block - 1) / block;
  for (int b = 0; b < blocks; ++b) {
    const int end = std::min(count, (b + 1) * block);
    scores[b] = *std::max_element(scores + int64_t{b} * block, scores + end);
  }
  for (int b = std::max(0, blocks - local); b < blocks; ++b) scores[b] = std::numeric_limits<float>::infinity();
  return blocks;
}

}  // namespace

void CpuBackend::choose_keys(const ChooseKeysArgs& args) {
  const KvLayer& kv = args.kv;
  const AttentionBatch& batch = *args.batch;
  check_layout(kv);
  SERVAL_CHECK(!kv.has_scales(), dtype_name(kv.dtype));
  StepScratch& scratch = step();
  const int heads = static_cast<int>(args.q.dim(1)), dim = static_cast<int>(args.q.dim(2)), pieces = kv.num_kv_heads;
  const bool weighs = args.weights.data != nullptr;
  const int piece = dim / pieces, per_row = weighs ? 1 : heads;
  SERVAL_CHECK(dim % (2 * pieces) == 0 && args.kept_from % 2 == 0 && args.kept_from + piece <= kv.head_dim &&
                   (weighs ? pieces == 1 : heads == pieces) && args.top_k > args.local,
               dim, pieces, heads, args.kept_from, kv.head_dim, args.top_k, args.local);
  StepScratch::Choice& choice = scratch.choice;
  SERVAL_CHECK(heads * dim + 8 * kTile <= scratch.index_floats && per_row <= choice.most_per_row &&
                   args.block >= choice.least_block,
               heads, dim, scratch.index_floats, per_row, args.block);
  choice.per_row = per_row;
  choice.block = args.block;
  choice.words = tiles_of(tiles_of(scratch.max_model_len, args.block), 64);
  choice.num_rows = batch.num_rows;
  const auto index = kv.dtype == DType::kF32   ? kernels_.index_f32
                     : kv.dtype == DType::kF8 ? kernels_.index_fp8
                                              : kernels_.index_bf16;
  const size_t piece_bytes = kv.key_bytes() / pieces,
               skipped = static_cast<size_t>(args.kept_from) * kv.block_size * dtype_bytes(kv.dtype);
  // As many rows at a time as there are threads: first the scores of all, piece by piece, then the choice of each.
  constexpr int kPiece = 4 * kChunk;
  const int at_once = pool_.num_threads();
  for (int first = 0; first < batch.num_rows; first += at_once) {
    const int rows = std::min(at_once, batch.num_rows - first);
    const auto seq_of = [&](int row) { return sequence_of(batch.row_start, batch.num_seqs, row); };
    const auto length_of = [&](int row, int seq) { return batch.first_pos[seq] + row - batch.row_start[seq] + 1; };
    const auto scores_of = [&](int row, int head) {
      return scratch.index_scores.as<float>() + (int64_t{row - first} * choice.most_per_row + head) * scratch.max_model_len;
    };
    const auto takes_all = [&](int length) { return length <= int64_t{args.top_k} * args.block; };
    int longest = 0;
    for (int row = first; row < first + rows; ++row) {
      const int length = length_of(row, seq_of(row));
      if (!takes_all(length)) longest = std::max(longest, length);
    }
    const int64_t parts = tiles_of(longest, kPiece);
    pool_.for_each(rows * parts, [&](int worker, int64_t item) {
      const int row = first + static_cast<int>(item / parts), seq = seq_of(row), begin = static_cast<int>(item % parts) * kPiece;
      const int length = length_of(row, seq), end = std::min(length, begin + kPiece);
      if (takes_all(length) || begin >= end) return;
      for (int p = 0; p < pieces; ++p) {
        const char* const tail = gather_tail(worker, kv, batch, seq, p, 0);
        index({.q = args.q.as<float>() + int64_t{row} * heads * dim + p * piece,
               .q_stride = dim,
               .weights = weighs ? args.weights.as<float>() + int64_t{row} * heads : nullptr,
               .heads = heads,
               .dim = piece,
               .begin = begin,
               .end = end,
               .keys = static_cast<const char*>(kv.keys),
               .key_block_bytes = kv.key_bytes(),
               .key_offset = p * piece_bytes + skipped,
               .blocks = batch.block_table + int64_t{seq} * batch.table_stride,
               .tail_block = tail_block_of(kv, batch, seq),
               .tail = tail == nullptr ? nullptr : tail + skipped,
               .tail_block_bytes = (kv.key_bytes() + kv.value_bytes()) / pieces,
               .block_shift = std::countr_zero(static_cast<unsigned>(kv.block_size)),
               .adds = p > 0,
               .out = scores_of(row, 0),
               .out_stride = scratch.max_model_len,
               .scratch = scratch.index.as<float>() + worker * scratch.index_floats});
      }
    });
    pool_.for_each(int64_t{rows} * per_row, [&](int, int64_t item) {
      const int row = first + static_cast<int>(item / per_row), head = static_cast<int>(item % per_row);
      uint64_t* const chosen = choice.of(row, head);
      const int length = length_of(row, seq_of(row));
      std::fill_n(chosen, choice.words, takes_all(length) ? ~uint64_t{0} : 0);
      if (takes_all(length)) return;
      float* const scores = scores_of(row, head);
      choose_best(scores, score_blocks(scores, length, args.block, args.local), args.top_k, chosen);
    });
  }
}

}  // namespace serval::cpu
