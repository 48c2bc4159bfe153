#include "kernels/cuda/attention.h"

#include <algorithm>

#include "kernels/cuda/attention_tile.cuh"

namespace serval::cuda {
namespace {

using simt::SharedMemory;

constexpr int kTileWarps = kTileQueryRows / 16;
constexpr int kMaxSplitWarps = 4;

// Writes the lane's two rows: columns 2t and 2t + 1 of each eight dimensions.
template <class T, int kDim>
SERVAL_DEVICE void store_rows(const AttentionParams& p, const QueryRows& rows,
                              const float (&out)[kDim / 8][4], const float (&factor)[2]) {
  const int t = simt::lane() % 4;
  SERVAL_UNROLL
  for (int i = 0; i < 2; ++i) {
    if (rows.position[i] < 0) continue;
    T* const to =
        static_cast<T*>(p.out) + int64_t{rows.row[i]} * p.num_heads * p.head_dim + rows.head[i] * p.head_dim;
    SERVAL_UNROLL
    for (int n = 0; n < kDim / 8; ++n) {
      if (8 * n >= p.head_dim) continue;
      const uint32_t pair = pack_pair<T>(multiply_rounded(out[n][2 * i], factor[i]),
                                         multiply_rounded(out[n][2 * i + 1], factor[i]));
      *reinterpret_cast<uint32_t*>(to + 8 * n + 2 * t) = pair;
    }
  }
}

// Shared memory of one loader group: two stages, and in fp8 the tile they are unpacked into.
template <class T, int kDim, bool is_fp8>
struct TileBuffers {
  static constexpr int kElements = 2 * kTileKeys * kDim;  // keys and values of a tile
  static constexpr int kBytes = is_fp8 ? 2 * kElements + 2 * kElements : 2 * kElements * 2;
};

// --- split sequences: a warp takes 16 packed rows and one chunk of keys ---

template <class T, int kDim, bool is_fp8>
SERVAL_KERNEL void SERVAL_MAX_THREADS(kMaxSplitWarps* simt::kWarp) attend_items_kernel(AttentionParams p) {
  using Buffers = TileBuffers<T, kDim, is_fp8>;
  const int num_warps = simt::num_threads() / simt::kWarp, warp = simt::warp();
  SharedMemory memory;
  const Shared<T> tiles = memory.take<T>(num_warps * (is_fp8 ? 1 : 2) * Buffers::kElements);
  const Shared<Fp8> bytes = memory.take<Fp8>(is_fp8 ? num_warps * 2 * Buffers::kElements : 0);
  const auto tile_at = [&](int stage) {
    return tiles.at((is_fp8 ? warp : 2 * warp + stage) * Buffers::kElements, Buffers::kElements);
  };
  const auto bytes_at = [&](int stage) {
    return is_fp8 ? bytes.at((2 * warp + stage) * Buffers::kElements, Buffers::kElements) : bytes;
  };
  const int num_seqs = p.counts[0];
  const int num_items = p.item_start[num_seqs] * p.num_kv_heads;
  const int heads_per_kv = p.num_heads / p.num_kv_heads;

  for (int index = simt::block_x() * num_warps + warp; index < num_items;
       index += simt::grid_x() * num_warps) {
    const int item = index / p.num_kv_heads, kv_head = index % p.num_kv_heads;
    const int seq = sequence_of(p.item_start, num_seqs, item);
    const int first_pos = p.first_pos[seq], num_rows = p.row_start[seq + 1] - p.row_start[seq];
    const ChunkRange chunks = chunks_of(first_pos, num_rows, p.window);
    const int within = item - p.item_start[seq];
    const int first_packed = within / chunks.count * kItemRows;
    const int begin = (chunks.first + within % chunks.count) * kChunkKeys;
    const int last_row = std::min((first_packed + kItemRows - 1) / heads_per_kv, num_rows - 1);
    const int last = std::min(begin + kChunkKeys - 1, first_pos + last_row);  // may lie before begin
    const int first = std::max(begin, first_seen(first_pos + first_packed / heads_per_kv, p.window));
    const SeqKeys keys = keys_of(p, seq);
    const QueryRows rows = query_rows(p, seq, kv_head, first_packed);
    WarpAttention<T, kDim> attention;
    attention.clear();
    const auto query = attention.keep_query(p, rows);
    const auto query_at = [&](int i, int panel) { return attention.query_part(p, rows, query, i, panel); };
    const int first_tile = first / kTileKeys * kTileKeys;
    const auto start = [&](int pos, int stage) {
      if (pos <= last) {
        load_tile<T, kDim, is_fp8>(p, tile_at(stage), bytes_at(stage), keys, kv_head, pos, first, last,
                                   simt::lane(), simt::kWarp);
      }
      copy_async_commit();
    };
    start(first_tile, 0);
    for (int pos = first_tile, stage = 0; pos <= last; pos += kTileKeys, stage ^= 1) {
      start(pos + kTileKeys, stage ^ 1);
      copy_async_wait<1>();
      simt::sync_warp();
      if constexpr (is_fp8) {
        unpack_tile<T, kDim>(bytes_at(stage), tile_at(stage), simt::lane(), simt::kWarp);
        simt::sync_warp();
      }
      attention.take_tile(p, rows, query_at, tile_at(stage), pos);
      simt::sync_warp();  // the stage has been read: the next turn fills it
    }
    copy_async_wait<0>();
    attention.end_chunk();
    if (chunks.count == 1) {
      const float factor[2] = {final_factor(p, attention.max[0], attention.sum[0], rows.head[0]),
                               final_factor(p, attention.max[1], attention.sum[1], rows.head[1])};
      store_rows<T, kDim>(p, rows, attention.out, factor);
      continue;
    }
    const int t = simt::lane() % 4;
    SERVAL_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int64_t at = int64_t{index} * kItemRows + simt::lane() / 4 + 8 * i;
      if (t == 0) {
        p.item_state[2 * at] = attention.max[i];
        p.item_state[2 * at + 1] = attention.sum[i];
      }
      SERVAL_UNROLL
      for (int n = 0; n < kDim / 8; ++n) {
        if (8 * n >= p.head_dim) continue;
        p.item_out[at * p.head_dim + 8 * n + 2 * t] = attention.out[n][2 * i];
        p.item_out[at * p.head_dim + 8 * n + 2 * t + 1] = attention.out[n][2 * i + 1];
      }
    }
  }
}

// One warp a (row, head) of a split sequence with several chunks: their results in ascending order.
template <class T>
SERVAL_KERNEL void SERVAL_MAX_THREADS(simt::kWarp) merge_items_kernel(AttentionParams p) {
  const int row = simt::block_x(), head = simt::block_y();
  const int num_seqs = p.counts[0];
  if (row >= p.row_start[num_seqs]) return;
  const int seq = sequence_of(p.row_start, num_seqs, row);
  if (p.item_start[seq] == p.item_start[seq + 1]) return;
  const ChunkRange chunks = chunks_of(p.first_pos[seq], p.row_start[seq + 1] - p.row_start[seq], p.window);
  if (chunks.count == 1) return;
  const int heads_per_kv = p.num_heads / p.num_kv_heads;
  const int packed = (row - p.row_start[seq]) * heads_per_kv + head % heads_per_kv;
  const int64_t first_item = p.item_start[seq] + int64_t{packed / kItemRows} * chunks.count;
  const auto place_of = [&](int chunk) {
    return ((first_item + chunk) * p.num_kv_heads + head / heads_per_kv) * kItemRows + packed % kItemRows;
  };
  constexpr int kMaxDims = 256 / simt::kWarp;
  float max = -INFINITY, sum = 0, value[kMaxDims] = {};
  for (int chunk = 0; chunk < chunks.count; ++chunk) {
    const int64_t at = place_of(chunk);
    const MergeFactors f = merge_state(max, sum, p.item_state[2 * at], p.item_state[2 * at + 1]);
    SERVAL_UNROLL
    for (int j = 0; j < kMaxDims; ++j) {
      const int dim = j * simt::kWarp + simt::lane();
      if (dim < p.head_dim) value[j] = merge_value(f, value[j], p.item_out[at * p.head_dim + dim]);
    }
  }
  const float factor = final_factor(p, max, sum, head);
  T* const out = static_cast<T*>(p.out) + (int64_t{row} * p.num_heads + head) * p.head_dim;
  SERVAL_UNROLL
  for (int j = 0; j < kMaxDims; ++j) {
    const int dim = j * simt::kWarp + simt::lane();
    if (dim < p.head_dim) out[dim] = from_float<T>(multiply_rounded(value[j], factor));
  }
}

// --- the other sequences: a block takes 64 packed rows and walks all of their keys ---

template <class T, int kDim, bool is_fp8>
SERVAL_KERNEL void SERVAL_MAX_THREADS(kTileWarps* simt::kWarp) attend_tiles_kernel(AttentionParams p) {
  using Buffers = TileBuffers<T, kDim, is_fp8>;
  constexpr int kThreads = kTileWarps * simt::kWarp;
  SharedMemory memory;
  const Shared<float> totals = memory.take<float>(kDim / 2 * kThreads);  // a thread's own, [value][thread]
  const Shared<T> tiles = memory.take<T>((is_fp8 ? 1 : 2) * Buffers::kElements);
  const Shared<Fp8> bytes = memory.take<Fp8>(is_fp8 ? 2 * Buffers::kElements : 0);
  const auto tile_at = [&](int stage) {
    return tiles.at(is_fp8 ? 0 : stage * Buffers::kElements, Buffers::kElements);
  };
  const auto bytes_at = [&](int stage) {
    return is_fp8 ? bytes.at(stage * Buffers::kElements, Buffers::kElements) : bytes;
  };
  const int num_seqs = p.counts[0];
  const int num_tiles = p.tile_start[num_seqs] * p.num_kv_heads;
  const int heads_per_kv = p.num_heads / p.num_kv_heads;

  for (int index = simt::block_x(); index < num_tiles; index += simt::grid_x()) {
    const int kv_head = index % p.num_kv_heads;
    const int seq = sequence_of(p.tile_start, num_seqs, index / p.num_kv_heads);
    const int first_pos = p.first_pos[seq], num_rows = p.row_start[seq + 1] - p.row_start[seq];
    // The last rows see most: they begin first.
    const int tile_of_seq = p.tile_start[seq + 1] - 1 - index / p.num_kv_heads;
    const int block_packed = tile_of_seq * kTileQueryRows;
    const int last_row = std::min((block_packed + kTileQueryRows - 1) / heads_per_kv, num_rows - 1);
    const int last = first_pos + last_row;
    const int first = first_seen(first_pos + block_packed / heads_per_kv, p.window);
    const SeqKeys keys = keys_of(p, seq);
    const int warp_packed = block_packed + simt::warp() * 16;
    const QueryRows rows = query_rows(p, seq, kv_head, warp_packed);
    const int warp_last = first_pos + std::min((warp_packed + 15) / heads_per_kv, num_rows - 1);
    WarpAttention<T, kDim> attention;
    attention.clear();
    const auto query = attention.keep_query(p, rows);
    const auto query_at = [&](int i, int panel) { return attention.query_part(p, rows, query, i, panel); };
    float max[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};  // of the chunks merged so far
    const auto merge_chunk = [&](bool is_first, bool is_final) {
      attention.end_chunk();
      MergeFactors factors[2];
      SERVAL_UNROLL
      for (int i = 0; i < 2; ++i)
        factors[i] = merge_state(max[i], sum[i], attention.max[i], attention.sum[i]);
      SERVAL_UNROLL
      for (int n = 0; n < kDim / 8; ++n) {
        SERVAL_UNROLL
        for (int c = 0; c < 4; ++c) {
          const int at = (n * 4 + c) * kThreads + simt::thread();
          const float merged =
              merge_value(factors[c / 2], is_first ? 0.0f : totals.get(at), attention.out[n][c]);
          if (is_final) {
            attention.out[n][c] = merged;
          } else {
            totals.set(at, merged);
            attention.out[n][c] = 0;
          }
        }
      }
      SERVAL_UNROLL
      for (int i = 0; i < 2; ++i) {
        attention.max[i] = -INFINITY;
        attention.sum[i] = 0;
      }
    };
    const int first_tile = first / kTileKeys * kTileKeys;
    const auto start = [&](int pos, int stage) {
      if (pos <= last) {
        load_tile<T, kDim, is_fp8>(p, tile_at(stage), bytes_at(stage), keys, kv_head, pos, first, last,
                                   simt::thread(), kThreads);
      }
      copy_async_commit();
    };
    start(first_tile, 0);
    bool is_first_chunk = true;
    for (int pos = first_tile, stage = 0; pos <= last; pos += kTileKeys, stage ^= 1) {
      start(pos + kTileKeys, stage ^ 1);
      copy_async_wait<1>();
      simt::sync_block();
      if constexpr (is_fp8) {
        unpack_tile<T, kDim>(bytes_at(stage), tile_at(stage), simt::thread(), kThreads);
        simt::sync_block();
      }
      if (pos <= warp_last) attention.take_tile(p, rows, query_at, tile_at(stage), pos);
      const bool is_last_tile = pos + kTileKeys > last;
      if ((pos + kTileKeys) % kChunkKeys == 0 || is_last_tile) {
        merge_chunk(is_first_chunk, is_last_tile);
        is_first_chunk = false;
      }
      simt::sync_block();  // the stage has been read: the next turn fills it
    }
    copy_async_wait<0>();
    const float factor[2] = {final_factor(p, max[0], sum[0], rows.head[0]),
                             final_factor(p, max[1], sum[1], rows.head[1])};
    store_rows<T, kDim>(p, rows, attention.out, factor);
  }
}

// Calls run with the kernel size for a head, as an integral_constant.
template <class Run>
void with_kernel_dim(int head_dim, const Run& run) {
  if (head_dim <= 64) return run(std::integral_constant<int, 64>());
  if (head_dim <= 96) return run(std::integral_constant<int, 96>());
  if (head_dim <= 128) return run(std::integral_constant<int, 128>());
  run(std::integral_constant<int, 256>());
}

template <class T, int kDim, bool is_fp8>
void launch_items(simt::Stream stream, const AttentionParams& p, int num_blocks, size_t shared_limit) {
  constexpr size_t kWarpBytes = TileBuffers<T, kDim, is_fp8>::kBytes;
  const int warps = static_cast<int>(std::min<size_t>(kMaxSplitWarps, shared_limit / kWarpBytes));
  simt::launch<attend_items_kernel<T, kDim, is_fp8>>(
      stream, {.grid_x = num_blocks, .threads = warps * simt::kWarp, .shared_bytes = warps * kWarpBytes}, p);
}

template <class T, int kDim, bool is_fp8>
void launch_tiles(simt::Stream stream, const AttentionParams& p, int num_blocks) {
  constexpr size_t kTotalBytes = sizeof(float) * kDim / 2 * kTileWarps * simt::kWarp;
  simt::launch<attend_tiles_kernel<T, kDim, is_fp8>>(
      stream,
      {.grid_x = num_blocks,
       .threads = kTileWarps * simt::kWarp,
       .shared_bytes = kTotalBytes + TileBuffers<T, kDim, is_fp8>::kBytes},
      p);
}

}  // namespace

template <class T>
void attend_split(simt::Stream stream, const AttentionParams& p, int num_blocks, int max_rows,
                  size_t shared_limit) {
  with_kernel_dim(p.head_dim, [&](auto dim) {
    if (p.is_fp8) {
      launch_items<T, dim(), true>(stream, p, num_blocks, shared_limit);
    } else {
      launch_items<T, dim(), false>(stream, p, num_blocks, shared_limit);
    }
  });
  simt::launch<merge_items_kernel<T>>(stream,
                                      {.grid_x = max_rows, .grid_y = p.num_heads, .threads = simt::kWarp}, p);
}

template <class T>
void attend_tiles(simt::Stream stream, const AttentionParams& p, int num_blocks) {
  with_kernel_dim(p.head_dim, [&](auto dim) {
    if (p.is_fp8) {
      launch_tiles<T, dim(), true>(stream, p, num_blocks);
    } else {
      launch_tiles<T, dim(), false>(stream, p, num_blocks);
    }
  });
}

#define SERVAL_INSTANTIATE(T)                                                            \
  template void attend_split<T>(simt::Stream, const AttentionParams&, int, int, size_t); \
  template void attend_tiles<T>(simt::Stream, const AttentionParams&, int);
SERVAL_INSTANTIATE(Bf16)
SERVAL_INSTANTIATE(Half)
#undef SERVAL_INSTANTIATE

}  // namespace serval::cuda
