// Keys and values in blocks: writing, copying, attending. The layout inside a block is kernel_table.h's.
// Attention runs over tasks of (sequence, some rows, one KV head); a long context of a single sequence still
// has a task for every KV head.
#include <bit>
#include <cstring>

#include "kernels/base/check.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/float_bits.h"

namespace serval::cpu {
namespace {

// Query vectors of a task: enough to share every load of a key many times, few enough to keep their sums in
// the second-level cache.
constexpr int kTaskVectors = 64;
constexpr int kMaxHeadDim = 256;

void check_layout(const KvLayer& kv) {
  SERVAL_CHECK(kv.dtype == DType::kF32 || kv.dtype == DType::kBF16, dtype_name(kv.dtype));
  SERVAL_CHECK(kv.block_size >= kMinBlock && std::has_single_bit(static_cast<unsigned>(kv.block_size)),
               kv.block_size);
  SERVAL_CHECK(kv.head_dim > 0 && kv.head_dim % 8 == 0 && kv.head_dim <= kMaxHeadDim, kv.head_dim);
}

int rows_per_task(int heads_per_kv) {
  return std::max(1, kTaskVectors / heads_per_kv);
}

// One row's keys or values into its place: element d of the head goes to place(d).
template <class Place>
void write_head(const float* from, int head_dim, void* head, DType dtype, const Place& place) {
  if (dtype == DType::kF32) {
    for (int d = 0; d < head_dim; ++d) static_cast<float*>(head)[place(d)] = from[d];
  } else {
    for (int d = 0; d < head_dim; ++d) static_cast<uint16_t*>(head)[place(d)] = float_to_bf16(from[d]);
  }
}

}  // namespace

size_t CpuBackend::attend_floats(int max_heads, int head_dim) {
  const size_t vectors = std::max(kTaskVectors, max_heads);
  constexpr size_t kLineFloats = 16;
  return (2 * vectors * (head_dim + 1) + 8 * kTile + kLineFloats) / kLineFloats * kLineFloats;
}

void CpuBackend::write_kv(const WriteKvArgs& args) {
  check_layout(args.kv);
  const int64_t rows = args.k.dim(0);
  const int heads = args.kv.num_kv_heads, head_dim = args.kv.head_dim, block_size = args.kv.block_size;
  SERVAL_CHECK(args.k.dim(1) == heads && args.k.dim(2) == head_dim && args.v.dim(1) == heads &&
                   args.v.dim(2) == head_dim,
               args.k.dim(1), heads, args.k.dim(2), head_dim);
  const size_t element = dtype_bytes(args.kv.dtype);
  const bool paired = args.kv.dtype == DType::kBF16;
  const int64_t limit = int64_t{args.kv.num_blocks} * block_size;
  for_rows(rows, 4 * heads * head_dim, [&](int64_t r) {
    const int32_t slot = args.slots[r];
    if (slot < 0) return;
    SERVAL_CHECK(slot < limit, slot, limit);
    const int offset = slot % block_size;
    for (int h = 0; h < heads; ++h) {
      const size_t head =
          ((static_cast<size_t>(slot / block_size) * heads + h) * block_size * head_dim) * element;
      const float* const k = args.k.as<float>() + r * args.row_stride + h * head_dim;
      const float* const v = args.v.as<float>() + r * args.row_stride + h * head_dim;
      void* const key_head = static_cast<std::byte*>(args.kv.keys) + head;
      void* const value_head = static_cast<std::byte*>(args.kv.values) + head;
      if (paired) {
        write_head(k, head_dim, key_head, args.kv.dtype,
                   [&](int d) { return (d / 2 * block_size + offset) * 2 + d % 2; });
        write_head(v, head_dim, value_head, args.kv.dtype,
                   [&](int d) { return (offset / 2 * head_dim + d) * 2 + offset % 2; });
      } else {
        write_head(k, head_dim, key_head, args.kv.dtype, [&](int d) { return d * block_size + offset; });
        write_head(v, head_dim, value_head, args.kv.dtype, [&](int d) { return offset * head_dim + d; });
      }
    }
  });
}

void CpuBackend::copy_kv_blocks(const KvLayer& kv, std::span<const BlockCopy> copies) {
  const size_t bytes = kv.block_bytes();
  for (const BlockCopy& copy : copies) {
    SERVAL_CHECK(copy.from >= 0 && copy.from < kv.num_blocks && copy.to >= 0 && copy.to < kv.num_blocks &&
                     copy.from != copy.to,
                 copy.from, copy.to, kv.num_blocks);
    // Positions interleave inside a block, and nobody reads those beyond num_tokens before they are written:
    // the whole block is the cheapest superset.
    for (void* const side : {kv.keys, kv.values}) {
      std::memcpy(static_cast<std::byte*>(side) + copy.to * bytes,
                  static_cast<std::byte*>(side) + copy.from * bytes, bytes);
    }
  }
}

void CpuBackend::attention(const AttentionArgs& args, int64_t q_row_stride) {
  const KvLayer& kv = args.kv;
  const AttentionBatch& batch = *args.batch;
  check_layout(kv);
  const int num_heads = static_cast<int>(args.q.dim(1)), head_dim = kv.head_dim;
  SERVAL_CHECK(num_heads % kv.num_kv_heads == 0 && args.q.dim(2) == head_dim, num_heads, kv.num_kv_heads,
               args.q.dim(2));
  const int heads = num_heads / kv.num_kv_heads;
  const int task_rows = rows_per_task(heads);
  SERVAL_CHECK(attend_floats(heads, head_dim) <= attend_floats_, heads, head_dim);
  SERVAL_CHECK((batch.num_seqs + 1) * sizeof(int32_t) <= task_starts_.bytes, batch.num_seqs);

  // Tasks of one KV head are numbered through the sequences.
  auto* const starts = task_starts_.as<int32_t>();
  starts[0] = 0;
  int64_t seen_positions = 0;
  for (int s = 0; s < batch.num_seqs; ++s) {
    const int rows = batch.row_start[s + 1] - batch.row_start[s];
    starts[s + 1] = starts[s] + (rows + task_rows - 1) / task_rows;
    seen_positions += int64_t{rows} * (batch.first_pos[s] + rows);
  }
  const int64_t per_head = starts[batch.num_seqs];
  const auto attend = kv.dtype == DType::kF32 ? kernels_.attend_f32 : kernels_.attend_bf16;
  const auto run_task = [&](int worker, int64_t task) {
    const int kv_head = static_cast<int>(task / per_head);
    const auto within = static_cast<int32_t>(task % per_head);
    const int s =
        static_cast<int>(std::upper_bound(starts, starts + batch.num_seqs + 1, within) - starts) - 1;
    const int first = (within - starts[s]) * task_rows;
    const int64_t row = batch.row_start[s] + first;
    attend({.q = args.q.as<float>() + row * q_row_stride + int64_t{kv_head} * heads * head_dim,
            .q_stride = q_row_stride,
            .out = args.out.as<float>() + (row * num_heads + int64_t{kv_head} * heads) * head_dim,
            .out_stride = int64_t{num_heads} * head_dim,
            .num_rows = std::min(task_rows, batch.row_start[s + 1] - batch.row_start[s] - first),
            .first_pos = batch.first_pos[s] + first,
            .heads = heads,
            .head_dim = head_dim,
            .keys = static_cast<const char*>(kv.keys),
            .values = static_cast<const char*>(kv.values),
            .block_bytes = kv.block_bytes(),
            .head_offset = static_cast<size_t>(kv_head) * kv.block_size * head_dim * dtype_bytes(kv.dtype),
            .blocks = batch.block_table + int64_t{s} * batch.table_stride,
            .block_shift = std::countr_zero(static_cast<unsigned>(kv.block_size)),
            .scale = args.scale,
            .window = args.window,
            .scratch = attend_scratch_.as<float>() + worker * attend_floats_});
  };
  // Several short tasks to a claim: a claim should be worth some microseconds (about 20 multiply-adds a
  // nanosecond).
  const int64_t tasks = per_head * kv.num_kv_heads;
  if (tasks == 0) return;
  const double task_ns =
      static_cast<double>(seen_positions) * num_heads * head_dim / 10.0 / static_cast<double>(tasks);
  constexpr double kMinClaimNs = 3000;
  const auto per_claim = static_cast<int64_t>(kMinClaimNs / (task_ns + 1)) + 1;
  pool_.for_each((tasks + per_claim - 1) / per_claim, [&](int worker, int64_t claim) {
    const int64_t end = std::min(tasks, (claim + 1) * per_claim);
    for (int64_t task = claim * per_claim; task < end; ++task) run_task(worker, task);
  });
}

}  // namespace serval::cpu
