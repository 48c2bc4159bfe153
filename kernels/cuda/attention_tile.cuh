// One warp's part of paged attention: 16 packed query rows against tiles of 32 keys, and the merge of chunks.
// Both attention kernels are made of these functions, so that a row has the same bits in either. Online
// softmax in base 2 (Milakov and Gimelshein 2018; Dao 2023, FlashAttention-2, section 3.1).
//
// kDim is head_dim rounded up to the kernel's size; the dimensions beyond are zeros.
#pragma once

#include <cmath>

#include "kernels/attention_split.h"
#include "kernels/cuda/attention_params.h"
#include "kernels/cuda/fragments.cuh"

namespace serval::cuda {

using simt::Shared;

inline constexpr float kLog2E = 1.44269504089f;

// Element of a tile of 32 keys in shared memory: panels of 32 dimensions, rows of 64 bytes. The 16-byte
// pieces of a row change places with its number, so that neither eight rows at one place (a transposed matrix
// load) nor four places of eight rows (a fragment) meet in a bank.
SERVAL_HOST_DEVICE constexpr int tile_offset(int key, int dim) {
  return (dim / 32 * kTileKeys + key) * 32 + (((dim / 8) % 4) ^ (key / 2 % 4)) * 8 + dim % 8;
}

// Where a sequence's keys and values are.
struct SeqKeys {
  const int32_t* blocks;
  uint64_t mask;  // of a branch; 0: none
  int tree_start;
};
SERVAL_DEVICE SeqKeys keys_of(const AttentionParams& p, int seq) {
  SeqKeys keys = {p.block_table + int64_t{seq} * p.counts[1], 0, 0};
  if (p.tree_masks != nullptr) {
    keys.mask = p.tree_masks[seq];
    keys.tree_start = p.tree_start[seq];
  }
  return keys;
}

// Copies of one tile's keys and values on their way into shared memory, by `loaders` threads of which this is
// number `loader`. Positions outside [first, last] become zeros. In fp8 the bytes land untouched,
// [K | V][key][dim], and unpack_tile brings them into place.
template <class T, int kDim, bool is_fp8>
SERVAL_DEVICE void load_tile(const AttentionParams& p, const Shared<T>& tile, const Shared<Fp8>& bytes,
                             const SeqKeys& seq, int kv_head, int tile_pos, int first, int last, int loader,
                             int loaders) {
  constexpr int kPerCopy = is_fp8 ? 16 : 8;
  constexpr int kCopies = kDim / kPerCopy;  // of a key
  const int block_size = 1 << p.block_shift;
  SERVAL_NO_UNROLL
  for (int i = loader; i < kTileKeys * kCopies; i += loaders) {
    const int key = i / kCopies, dim = i % kCopies * kPerCopy;
    const int pos = tile_pos + key;
    const bool is_valid = pos >= first && pos <= last && dim < p.head_dim;
    int64_t at = 0;
    if (is_valid) {
      const int place = branch_place(seq.mask, seq.tree_start, pos);
      const int64_t block = seq.blocks[place >> p.block_shift];
      at = ((block * p.num_kv_heads + kv_head) * block_size + (place & (block_size - 1))) * p.head_dim + dim;
    }
    if constexpr (is_fp8) {
      copy_async16(bytes, key * kDim + dim, static_cast<const Fp8*>(p.keys) + at, is_valid);
      copy_async16(bytes, (kTileKeys + key) * kDim + dim, static_cast<const Fp8*>(p.values) + at, is_valid);
    } else {
      copy_async16(tile, tile_offset(key, dim), static_cast<const T*>(p.keys) + at, is_valid);
      copy_async16(tile, kTileKeys * kDim + tile_offset(key, dim), static_cast<const T*>(p.values) + at,
                   is_valid);
    }
  }
}

// The fp8 bytes of a tile as numbers of T, in the places of load_tile. The caller sees to barriers around it.
template <class T, int kDim>
SERVAL_DEVICE void unpack_tile(const Shared<Fp8>& bytes, const Shared<T>& tile, int loader, int loaders) {
  constexpr int kPieces = kDim / 8;
  SERVAL_NO_UNROLL
  for (int i = loader; i < 2 * kTileKeys * kPieces; i += loaders) {
    const int row = i / kPieces, dim = i % kPieces * 8;
    const Bytes8 packed = bytes.template load<Bytes8>(row * kDim + dim);
    Bytes16 numbers;
    SERVAL_UNROLL
    for (int j = 0; j < 4; ++j) {
      const uint32_t pair = packed.word[j / 2] >> (16 * (j % 2));
      numbers.word[j] = pack_pair<T>(to_float(Fp8{static_cast<uint8_t>(pair & 0xffu)}),
                                     to_float(Fp8{static_cast<uint8_t>(pair >> 8 & 0xffu)}));
    }
    tile.template store<Bytes16>(row / kTileKeys * kTileKeys * kDim + tile_offset(row % kTileKeys, dim),
                                 numbers);
  }
}

// The packed rows g and g + 8 of a warp, as its lane sees them.
struct QueryRows {
  int position[2];  // -1: there is no such row
  int row[2];       // of the step
  int head[2];
};

SERVAL_DEVICE QueryRows query_rows(const AttentionParams& p, int seq, int kv_head, int first_packed) {
  QueryRows rows;
  const int heads_per_kv = p.num_heads / p.num_kv_heads;
  const int begin = p.row_start[seq], count = p.row_start[seq + 1] - begin;
  SERVAL_UNROLL
  for (int i = 0; i < 2; ++i) {
    const int packed = first_packed + simt::lane() / 4 + 8 * i;
    const int token = packed / heads_per_kv;
    const bool is_valid = token < count;
    rows.position[i] = is_valid ? p.first_pos[seq] + token : -1;
    rows.row[i] = begin + (is_valid ? token : 0);
    rows.head[i] = kv_head * heads_per_kv + packed % heads_per_kv;
  }
  return rows;
}

SERVAL_DEVICE bool sees(const AttentionParams& p, const QueryRows& rows, int i, int pos) {
  const int own = rows.position[i];
  return pos <= own && pos >= first_seen(own, p.window);
}

// What a row has seen so far: the largest logit, the sum of 2^(logit - largest), and the weighted values.
template <class T, int kDim>
struct WarpAttention {
  static constexpr int kPanels = kDim / 32;
  static constexpr bool kKeepsQuery = kDim <= 128;  // in registers; beyond there are not enough of them
  float max[2];
  float sum[2];  // of a chunk in progress: this lane's columns only
  float out[kDim / 8][4];

  SERVAL_DEVICE void clear() {
    SERVAL_UNROLL
    for (int i = 0; i < 2; ++i) {
      max[i] = -INFINITY;
      sum[i] = 0;
    }
    SERVAL_UNROLL
    for (int n = 0; n < kDim / 8; ++n) {
      SERVAL_UNROLL
      for (int c = 0; c < 4; ++c) out[n][c] = 0;
    }
  }

  // Eight dimensions of each of the lane's rows in each panel, as multiply_run wants them.
  static SERVAL_DEVICE Bytes16 load_query(const AttentionParams& p, const QueryRows& rows, int i, int panel) {
    const int dim = panel * 32 + 8 * (simt::lane() % 4);
    Bytes16 eight = {{0, 0, 0, 0}};
    if (rows.position[i] >= 0 && dim < p.head_dim) {
      const T* const q =
          static_cast<const T*>(p.q) + int64_t{rows.row[i]} * p.q_stride + rows.head[i] * p.head_dim;
      eight = *reinterpret_cast<const Bytes16*>(q + dim);
    }
    return eight;
  }

  // The query as far as it is kept in registers; where it is not, its parts are read again for every tile.
  struct KeptQuery {
    Bytes16 part[2][kKeepsQuery ? kPanels : 1];
  };
  static SERVAL_DEVICE KeptQuery keep_query(const AttentionParams& p, const QueryRows& rows) {
    KeptQuery query{};
    if constexpr (kKeepsQuery) {
      SERVAL_UNROLL
      for (int panel = 0; panel < kPanels; ++panel) {
        query.part[0][panel] = load_query(p, rows, 0, panel);
        query.part[1][panel] = load_query(p, rows, 1, panel);
      }
    }
    return query;
  }
  static SERVAL_DEVICE Bytes16 query_part(const AttentionParams& p, const QueryRows& rows,
                                          const KeptQuery& query, int i, int panel) {
    if constexpr (kKeepsQuery) {
      return query.part[i][panel];
    } else {
      return load_query(p, rows, i, panel);
    }
  }

  // Takes the tile's keys in. `query(i, panel)` gives row i's part of the query.
  template <class Query>
  SERVAL_DEVICE void take_tile(const AttentionParams& p, const QueryRows& rows, const Query& query,
                               const Shared<T>& tile, int tile_pos) {
    const int g = simt::lane() / 4, t = simt::lane() % 4;
    // The lane's part of tile_offset: what is added to it below is the same for every lane.
    const int key_base = tile_offset(g, 8 * t);
    float s[kTileKeys / 8][4] = {};
    const auto multiply_panel = [&](int panel) {
      const Bytes16 low = query(0, panel), high = query(1, panel);
      SERVAL_UNROLL
      for (int n = 0; n < kTileKeys / 8; ++n) {
        const Bytes16 key = tile.template load<Bytes16>(key_base + (panel * kTileKeys + 8 * n) * 32);
        multiply_run<T>(s[n], low, high, key);
      }
    };
    if constexpr (kKeepsQuery) {
      SERVAL_UNROLL
      for (int panel = 0; panel < kPanels; ++panel) multiply_panel(panel);
    } else {
      SERVAL_NO_UNROLL
      for (int panel = 0; panel < kPanels; ++panel) multiply_panel(panel);
    }
    const float scale = multiply_rounded(p.scale, p.key_scale);
    const bool is_masked = !(sees(p, rows, 0, tile_pos) && sees(p, rows, 0, tile_pos + kTileKeys - 1) &&
                             sees(p, rows, 1, tile_pos) && sees(p, rows, 1, tile_pos + kTileKeys - 1));
    float slope[2] = {0, 0};
    if (p.slopes != nullptr) {
      slope[0] = p.slopes[rows.head[0]];
      slope[1] = p.slopes[rows.head[1]];
    }
    float most[2] = {-INFINITY, -INFINITY};
    SERVAL_UNROLL
    for (int n = 0; n < kTileKeys / 8; ++n) {
      SERVAL_UNROLL
      for (int c = 0; c < 4; ++c) {
        float logit = multiply_rounded(s[n][c], scale);
        if (p.soft_cap > 0) logit = multiply_rounded(p.soft_cap, tanhf(logit / p.soft_cap));
        const int pos = tile_pos + 8 * n + 2 * t + c % 2;
        if (p.slopes != nullptr)
          logit = fmaf(-slope[c / 2], static_cast<float>(rows.position[c / 2] - pos), logit);
        logit = multiply_rounded(logit, kLog2E);
        if (is_masked && !sees(p, rows, c / 2, pos)) logit = -INFINITY;
        s[n][c] = logit;
        most[c / 2] = fmaxf(most[c / 2], logit);
      }
    }
    float shrink[2];
    SERVAL_UNROLL
    for (int i = 0; i < 2; ++i) {
      most[i] = fmaxf(most[i], simt::shuffle_xor(most[i], 1));
      most[i] = fmaxf(most[i], simt::shuffle_xor(most[i], 2));
      most[i] = fmaxf(most[i], max[i]);
      // A row that has seen nothing yet keeps its zeros.
      shrink[i] = max[i] == -INFINITY ? 0.0f : exp2_fast(max[i] - most[i]);
      max[i] = most[i];
      sum[i] = multiply_rounded(sum[i], shrink[i]);
    }
    SERVAL_UNROLL
    for (int n = 0; n < kTileKeys / 8; ++n) {
      SERVAL_UNROLL
      for (int c = 0; c < 4; ++c) {
        const float weight = s[n][c] == -INFINITY ? 0.0f : exp2_fast(s[n][c] - max[c / 2]);
        s[n][c] = weight;
        sum[c / 2] += weight;
      }
    }
    SERVAL_UNROLL
    for (int n = 0; n < kDim / 8; ++n) {
      SERVAL_UNROLL
      for (int c = 0; c < 4; ++c) out[n][c] = multiply_rounded(out[n][c], shrink[c / 2]);
    }
    const int value_key = simt::lane() % 16, value_dim = simt::lane() / 16 * 8;
    const int value_base[2] = {kTileKeys * kDim + tile_offset(value_key, value_dim),
                               kTileKeys * kDim + tile_offset(value_key, value_dim + 16)};
    SERVAL_UNROLL
    for (int k = 0; k < kTileKeys / 16; ++k) {
      const uint32_t weights[4] = {
          pack_pair<T>(s[2 * k][0], s[2 * k][1]), pack_pair<T>(s[2 * k][2], s[2 * k][3]),
          pack_pair<T>(s[2 * k + 1][0], s[2 * k + 1][1]), pack_pair<T>(s[2 * k + 1][2], s[2 * k + 1][3])};
      SERVAL_UNROLL
      for (int n = 0; n < kDim / 8; n += 2) {
        uint32_t value[4];
        load_matrix_x4_transposed(tile, value_base[n / 2 % 2] + (n / 4 * kTileKeys + 16 * k) * 32, value);
        const uint32_t first[2] = {value[0], value[1]}, second[2] = {value[2], value[3]};
        mma_m16n8k16<T>(out[n], weights, first);
        mma_m16n8k16<T>(out[n + 1], weights, second);
      }
    }
  }

  // The chunk is over: every lane of a row learns its whole sum.
  SERVAL_DEVICE void end_chunk() {
    SERVAL_UNROLL
    for (int i = 0; i < 2; ++i) {
      sum[i] += simt::shuffle_xor(sum[i], 1);
      sum[i] += simt::shuffle_xor(sum[i], 2);
    }
  }
};

// Factors that bring a row's result so far and a chunk's to one maximum. A chunk of which the row saw nothing
// changes no bit.
struct MergeFactors {
  float so_far, chunk;
};
SERVAL_DEVICE MergeFactors merge_state(float& max, float& sum, float chunk_max, float chunk_sum) {
  if (chunk_max == -INFINITY) return {1.0f, 0.0f};
  const float most = fmaxf(max, chunk_max);
  const MergeFactors f = {max == -INFINITY ? 0.0f : exp2_fast(max - most), exp2_fast(chunk_max - most)};
  sum = fmaf(sum, f.so_far, multiply_rounded(chunk_sum, f.chunk));
  max = most;
  return f;
}
SERVAL_DEVICE float merge_value(const MergeFactors& f, float so_far, float chunk) {
  return fmaf(so_far, f.so_far, multiply_rounded(chunk, f.chunk));
}

// What a row's merged values are to be multiplied with at the end; `sink` joins the sum without a value.
SERVAL_DEVICE float final_factor(const AttentionParams& p, float max, float sum, int head) {
  float factor = 1;
  if (p.sinks != nullptr) {
    const MergeFactors f = merge_state(max, sum, multiply_rounded(p.sinks[head], kLog2E), 1.0f);
    factor = f.so_far;
  }
  return sum > 0 ? multiply_rounded(factor, p.value_scale) / sum : 0.0f;
}

}  // namespace serval::cuda
