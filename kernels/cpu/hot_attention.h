// Attention of some rows of one sequence over one KV head (kernel_table.h describes the block layout). Query
// vectors (row, head) are taken in groups that share every load of keys and values. Included by
// hot_kernels.cc alone.
//
// What a query vector computes does not depend on its group: each score is one chain over the dimensions,
// each output of a chunk one chain over the positions it sees, and the chunks are merged by one function,
// whether their results come from another thread or not; what lies beyond its own positions is neither added
// nor multiplied (the memory there may hold anything, NaN included).
#pragma once

#include <utility>

#include "kernels/cpu/hot_rows.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/simd.h"

namespace serval::cpu {
namespace {

#if defined(__AVX512F__)
inline constexpr int kMaxGroup = 8;
constexpr int score_vecs(int group) {
  return group <= 4 ? 4 : 2;
}
constexpr int value_vecs(int group) {
  return group <= 4 ? 4 : 2;
}
#else
inline constexpr int kMaxGroup = 4;
constexpr int score_vecs(int) {
  return 2;
}
constexpr int value_vecs(int) {
  return 2;
}
#endif

constexpr float kMinusInfinity = -__builtin_inff();

// Keys are read two dimensions at a time, values two positions at a time; `lanes` < kLanes asks for a part.
struct F32Kv {
  static constexpr size_t kPairBytes = 8;  // of two dimensions of a key, of two positions of a value
  static constexpr size_t kLaneBytes = 4;  // of a position in a row of keys, of a dimension in one of values
  static constexpr bool kHasScales = false, kHasOffsets = false;
  static void key_pair(const char* p, int block_size, int lanes, Vec& even, Vec& odd) {
    const auto* f = reinterpret_cast<const float*>(p);
    even = lanes == kLanes ? load(f) : load_part(f, lanes);
    odd = lanes == kLanes ? load(f + block_size) : load_part(f + block_size, lanes);
  }
  static Vec even_value(const char* p, int, int lanes) {
    const auto* f = reinterpret_cast<const float*>(p);
    return lanes == kLanes ? load(f) : load_part(f, lanes);
  }
  static Vec odd_value(const char* p, int value_dim, int lanes) {
    return even_value(p + value_dim * 4, 0, lanes);
  }
  static void prefetch(const char* p, int row) {  // row: block_size of keys, value_dim of values
    __builtin_prefetch(p, 0, 2);
    __builtin_prefetch(p + row * 4, 0, 2);
  }
};

// A byte a number, in the order of F32Kv.
template <auto kLoad>
struct ByteKv {
  static constexpr size_t kPairBytes = 2, kLaneBytes = 1;
  static constexpr bool kHasScales = false, kHasOffsets = false;
  static Vec numbers(const char* p, int lanes) { return lanes == kLanes ? kLoad(p) : load_bytes_part<kLoad>(p, lanes); }
  static void key_pair(const char* p, int block_size, int lanes, Vec& even, Vec& odd) {
    even = numbers(p, lanes);
    odd = numbers(p + block_size, lanes);
  }
  static Vec even_value(const char* p, int, int lanes) { return numbers(p, lanes); }
  static Vec odd_value(const char* p, int value_dim, int lanes) { return numbers(p + value_dim, lanes); }
  static void prefetch(const char* p, int row) {
    __builtin_prefetch(p, 0, 2);
    __builtin_prefetch(p + row, 0, 2);
  }
};
using Fp8Kv = ByteKv<load_fp8>;

struct Bf16Kv {
  static constexpr size_t kPairBytes = 4, kLaneBytes = 4;
  static constexpr bool kHasScales = false, kHasOffsets = false;
  static IntVec pairs(const char* p, int lanes) {
    return lanes == kLanes ? load_ints(p) : load_ints_part(p, lanes);
  }
  static void key_pair(const char* p, int, int lanes, Vec& even, Vec& odd) {
    const IntVec both = pairs(p, lanes);
    even = even_of(both);
    odd = odd_of(both);
  }
  static Vec even_value(const char* p, int, int lanes) { return even_of(pairs(p, lanes)); }
  static Vec odd_value(const char* p, int, int lanes) { return odd_of(pairs(p, lanes)); }
  static void prefetch(const char* p, int) { __builtin_prefetch(p, 0, 2); }
};

// Codes that stand for numbers under what lies behind them (KvLayer): a score is made of the sum over codes, and a weight
// takes its value's scale before it meets the codes.
struct Int8Kv : ByteKv<load_bytes> {
  static constexpr bool kHasScales = true;
  static Vec scales(const char* p, int lanes) {
    const auto* f = reinterpret_cast<const float*>(p);
    return lanes == kLanes ? load(f) : load_part(f, lanes);
  }
  static Vec offsets(const char*, int) { return Vec{}; }
};

// Two share a byte in the order of Bf16Kv, the even one its low half.
struct Int4Kv {
  static constexpr size_t kPairBytes = 1, kLaneBytes = 1;
  static constexpr bool kHasScales = true, kHasOffsets = true;
  static IntVec pairs(const char* p, int lanes) {
    return lanes == kLanes ? load_small(p) : load_bytes_part<load_small>(p, lanes);
  }
  static void key_pair(const char* p, int, int lanes, Vec& even, Vec& odd) {
    const IntVec both = pairs(p, lanes);
    even = to_floats(both & 15);
    odd = to_floats(both >> 4);
  }
  static Vec even_value(const char* p, int, int lanes) { return to_floats(pairs(p, lanes) & 15); }
  static Vec odd_value(const char* p, int, int lanes) { return to_floats(pairs(p, lanes) >> 4); }
  static void prefetch(const char* p, int) { __builtin_prefetch(p, 0, 2); }
  static Vec scales(const char* p, int lanes) { return even_of(Bf16Kv::pairs(p, lanes)); }
  static Vec offsets(const char* p, int lanes) { return odd_of(Bf16Kv::pairs(p, lanes)); }
};

// scores[m][t * lanes ...] = q[.][m] . key of NT vectors of positions. q is [head_dim][MQ]. ahead, when not
// null, points at the same vectors of the next tile, which are fetched at the pace of the loads.
template <class Kv, int MQ, int NT>
void score_positions(const float* q, int head_dim, int block_size, const char* const* keys,
                     const char* const* ahead, int lanes, float* scores) {
  Vec acc[MQ][NT] = {};
  const size_t stride = block_size * Kv::kPairBytes;
  for (int d = 0; d < head_dim; d += 2) {
    if (ahead != nullptr) {
#pragma GCC unroll 4
      for (int t = 0; t < NT; ++t) Kv::prefetch(ahead[t] + d / 2 * stride, block_size);
    }
    Vec even[NT], odd[NT];
#pragma GCC unroll 4
    for (int t = 0; t < NT; ++t) Kv::key_pair(keys[t] + d / 2 * stride, block_size, lanes, even[t], odd[t]);
#pragma GCC unroll 8
    for (int m = 0; m < MQ; ++m) {
      const Vec x = broadcast(q[d * MQ + m]);
#pragma GCC unroll 4
      for (int t = 0; t < NT; ++t) acc[m][t] = fma(even[t], x, acc[m][t]);
    }
#pragma GCC unroll 8
    for (int m = 0; m < MQ; ++m) {
      const Vec x = broadcast(q[(d + 1) * MQ + m]);
#pragma GCC unroll 4
      for (int t = 0; t < NT; ++t) acc[m][t] = fma(odd[t], x, acc[m][t]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < MQ; ++m) {
#pragma GCC unroll 4
    for (int t = 0; t < NT; ++t) {
      float* const p = scores + m * kTile + t * lanes;
      if (lanes == kLanes) {
        store(p, acc[m][t]);
      } else {
        store_part(p, acc[m][t], lanes);
      }
    }
  }
}

// Vectors [begin, end) of the tile's positions.
template <class Kv, int MQ>
void score_tile(const float* q, int head_dim, int block_size, const char* const* keys,
                const char* const* ahead, int lanes, int begin, int end, float* scores) {
  constexpr int NT = score_vecs(MQ);
  const auto at = [&](int v) { return ahead == nullptr ? nullptr : ahead + v; };
  int v = begin;
  if (lanes == kLanes) {
    for (; v + NT <= end; v += NT)
      score_positions<Kv, MQ, NT>(q, head_dim, block_size, keys + v, at(v), kLanes, scores + v * kLanes);
    for (; v < end; ++v)
      score_positions<Kv, MQ, 1>(q, head_dim, block_size, keys + v, at(v), kLanes, scores + v * kLanes);
  } else {
    for (; v < end; ++v)
      score_positions<Kv, MQ, 1>(q, head_dim, block_size, keys + v, at(v), lanes, scores + v * lanes);
  }
}

// Lowers the scores of a tile by slope for each position to the query, which stands `distance` behind the first.
inline void lower_by_distance(float* scores, float slope, int distance) {
  Vec behind;
  for (int i = 0; i < kLanes; ++i) behind[i] = static_cast<float>(distance - i);
  for (int i = 0; i < kTile; i += kLanes) {
    store(scores + i, fma(broadcast(-slope), behind, load(scores + i)));
    behind -= broadcast(static_cast<float>(kLanes));
  }
}

// Turns the scores of positions [begin, end) into weights relative to the new maximum, zeros elsewhere;
// updates maximum and sum, returns the factor for what was accumulated before.
inline float soften(float* scores, int begin, int end, float& maximum, float& sum) {
  Vec best = broadcast(kMinusInfinity);
  if (begin == 0 && end == kTile) {
    for (int i = 0; i < kTile; i += kLanes) best = max(best, load(scores + i));
  } else {
    IntVec position;
    for (int i = 0; i < kLanes; ++i) position[i] = i;
    for (int i = 0; i < kTile; i += kLanes) {
      const Vec seen = (position >= begin) & (position < end) ? load(scores + i) : broadcast(kMinusInfinity);
      store(scores + i, seen);
      best = max(best, seen);
      position += kLanes;
    }
  }
  const float tile_max = reduce_max(best);
  const float new_max = tile_max > maximum ? tile_max : maximum;
  Vec total{};
  for (int i = 0; i < kTile; i += kLanes) {
    const Vec weight = exp(load(scores + i) - new_max);
    store(scores + i, weight);
    total += weight;
  }
  const float factor = exp(broadcast(maximum - new_max))[0];
  maximum = new_max;
  sum = sum * factor + reduce_add(total);
  return factor;
}

// Which of a tile's positions a row attends to, of its bits for each `block` positions.
inline uint64_t chosen_in_tile(const uint64_t* chosen, int block, int start) {
  static_assert(kTile == 64);
  if (block == 1) return chosen[start / kTile];
  uint64_t mask = 0;
  for (int i = 0; i < kTile; ++i) {
    const int b = (start + i) / block;
    mask |= (chosen[b / 64] >> b % 64 & 1) << i;
  }
  return mask;
}
// Those of positions [begin, end).
inline uint64_t within(uint64_t mask, int begin, int end) {
  if (begin >= end) return 0;
  return (mask >> begin << begin) & (~uint64_t{0} >> (kTile - end));
}
inline void hide(float* scores, uint64_t mask) {
  for (int i = 0; i < kTile; ++i) {
    if ((mask >> i & 1) == 0) scores[i] = kMinusInfinity;
  }
}

// acc[m][d ...] = acc[m] * factor[m] + sum over positions [begin, end) of weights[m][position] * value, for
// ND vectors of dimensions from d on. pairs[i] points at positions 2i and 2i + 1 of the tile; ahead is as
// above.
template <class Kv, int MQ, int ND>
void add_values(const float* weights, int begin, int end, const char* const* pairs, const char* const* ahead,
                int value_dim, int d, int lanes, const float* factor, float* acc) {
  Vec sum[MQ][ND];
#pragma GCC unroll 8
  for (int m = 0; m < MQ; ++m) {
#pragma GCC unroll 4
    for (int n = 0; n < ND; ++n) {
      const float* const p = acc + m * value_dim + d + n * kLanes;
      sum[m][n] = (lanes == kLanes ? load(p) : load_part(p, lanes)) * factor[m];
    }
  }
  const auto add = [&](const Vec(&value)[ND], int position) {
#pragma GCC unroll 8
    for (int m = 0; m < MQ; ++m) {
      const Vec w = broadcast(weights[m * kTile + position]);
#pragma GCC unroll 4
      for (int n = 0; n < ND; ++n) sum[m][n] = fma(value[n], w, sum[m][n]);
    }
  };
  const auto add_even = [&](int position) {
    Vec value[ND];
#pragma GCC unroll 4
    for (int n = 0; n < ND; ++n)
      value[n] = Kv::even_value(pairs[position / 2] + (d + n * kLanes) * Kv::kLaneBytes, value_dim, lanes);
    add(value, position);
  };
  const auto add_odd = [&](int position) {
    Vec value[ND];
#pragma GCC unroll 4
    for (int n = 0; n < ND; ++n)
      value[n] = Kv::odd_value(pairs[position / 2] + (d + n * kLanes) * Kv::kLaneBytes, value_dim, lanes);
    add(value, position);
  };
  int position = begin;
  if (position % 2 != 0) add_odd(position++);
  for (; position + 1 < end; position += 2) {
    if (ahead != nullptr) {
#pragma GCC unroll 4
      for (int n = 0; n < ND; ++n) Kv::prefetch(ahead[position / 2] + (d + n * kLanes) * Kv::kLaneBytes, value_dim);
    }
    add_even(position);
    add_odd(position + 1);
  }
  if (position < end) add_even(position);
#pragma GCC unroll 8
  for (int m = 0; m < MQ; ++m) {
#pragma GCC unroll 4
    for (int n = 0; n < ND; ++n) {
      float* const p = acc + m * value_dim + d + n * kLanes;
      if (lanes == kLanes) {
        store(p, sum[m][n]);
      } else {
        store_part(p, sum[m][n], lanes);
      }
    }
  }
}

template <class Kv, int MQ>
void add_tile(const float* weights, int begin, int end, const char* const* pairs, const char* const* ahead,
              int value_dim, const float* factor, float* acc) {
  constexpr int ND = value_vecs(MQ);
  int d = 0;
  for (; d + ND * kLanes <= value_dim; d += ND * kLanes)
    add_values<Kv, MQ, ND>(weights, begin, end, pairs, ahead, value_dim, d, kLanes, factor, acc);
  for (; d + kLanes <= value_dim; d += kLanes)
    add_values<Kv, MQ, 1>(weights, begin, end, pairs, ahead, value_dim, d, kLanes, factor, acc);
  if (d < value_dim)
    add_values<Kv, MQ, 1>(weights, begin, end, pairs, ahead, value_dim, d, value_dim - d, factor, acc);
}

template <class Kv>
struct AttendKernels {
  decltype(&score_tile<Kv, 1>) score[kMaxGroup];
  decltype(&add_tile<Kv, 1>) add[kMaxGroup];
};
template <class Kv>
constexpr AttendKernels<Kv> attend_kernels() {
  return []<int... Q>(std::integer_sequence<int, Q...>) {
    return AttendKernels<Kv>{{score_tile<Kv, Q + 1>...}, {add_tile<Kv, Q + 1>...}};
  }
  (std::make_integer_sequence<int, kMaxGroup>{});
}

// Bytes of a head's numbers of `dim` in a block, and of all that the block has of the head.
template <class Kv>
constexpr size_t number_bytes(int dim, int block_shift) {
  return dim / 2 * Kv::kPairBytes << block_shift;
}
template <class Kv>
constexpr size_t head_bytes(int dim, int block_shift) {
  return number_bytes<Kv>(dim, block_shift) + (Kv::kHasScales ? size_t{4} << block_shift : 0);
}

// Pointers into the blocks of one tile; entries outside the positions that some row sees stay as they were.
template <class Kv>
struct TilePointers {
  const char* keys[kTile / 4] = {};   // one per vector of positions
  const char* pairs[kTile / 2] = {};  // one per pair of positions
  const char* key_scales[Kv::kHasScales ? kTile / 4 : 1] = {};  // as keys
  const char* value_scales[Kv::kHasScales ? kTile / 4 : 1] = {};

  // The tile begins at position `start`; rows see its positions [begin, end).
  void point(const AttendArgs& args, int start, int begin, int end, int lanes) {
    const size_t offset_mask = (size_t{1} << args.block_shift) - 1;
    const size_t key_bytes = head_bytes<Kv>(args.kept_dim, args.block_shift),
                 tail_bytes = key_bytes + head_bytes<Kv>(args.value_dim, args.block_shift);
    const auto keys_of = [&](int index) {
      return index < args.tail_block ? args.keys + args.blocks[index] * args.key_block_bytes + args.key_offset
                                     : args.tail + (index - args.tail_block) * tail_bytes;
    };
    const auto values_of = [&](int index) {
      return index < args.tail_block ? args.values + args.blocks[index] * args.value_block_bytes + args.value_offset
                                     : args.tail + (index - args.tail_block) * tail_bytes + key_bytes;
    };
    for (int v = begin / lanes; v * lanes < end; ++v) {
      const int position = start + v * lanes, index = position >> args.block_shift;
      const size_t offset = position & offset_mask;
      const char* const block = keys_of(index);
      keys[v] = block + offset * Kv::kLaneBytes;
      if constexpr (Kv::kHasScales) {
        key_scales[v] = block + number_bytes<Kv>(args.kept_dim, args.block_shift) + offset * 4;
        value_scales[v] = values_of(index) + number_bytes<Kv>(args.value_dim, args.block_shift) + offset * 4;
      }
    }
    for (int i = begin / 2; i * 2 < end; ++i) {
      const int position = start + i * 2;
      const size_t offset = position & offset_mask;
      pairs[i] = values_of(position >> args.block_shift) + offset / 2 * args.value_dim * Kv::kPairBytes;
    }
  }
};

// A tile's keys [head_dim][kTile] and values [kTile][value_dim] as the floats that they are, those of vectors with a position in
// [begin, end); `to` points at them.
template <class Kv>
void widen_tile(const TilePointers<Kv>& at, int head_dim, int value_dim, int block_size, int begin, int end, int lanes,
                float* keys, float* values, TilePointers<F32Kv>& to) {
  for (int v = begin / lanes; v * lanes < end; ++v) {
    for (int d = 0; d < head_dim; d += 2) {
      Vec even, odd;
      Kv::key_pair(at.keys[v] + d / 2 * block_size * Kv::kPairBytes, block_size, lanes, even, odd);
      store_some(keys + d * kTile + v * lanes, even, lanes);
      store_some(keys + (d + 1) * kTile + v * lanes, odd, lanes);
    }
  }
  for (int i = begin; i < end; ++i) {
    for_vectors(value_dim, [&](int64_t d, int width) {
      const char* const from = at.pairs[i / 2] + d * Kv::kLaneBytes;
      store_some(values + i * value_dim + d,
                 i % 2 == 0 ? Kv::even_value(from, value_dim, width) : Kv::odd_value(from, value_dim, width), width);
    });
  }
  for (int v = 0; v * kLanes < kTile; ++v) to.keys[v] = reinterpret_cast<const char*>(keys + v * kLanes);
  for (int i = 0; i < kTile / 2; ++i) to.pairs[i] = reinterpret_cast<const char*>(values + 2 * i * value_dim);
}

// What stands beside the codes of a tile; `of` as TilePointers has them.
template <class Kv>
struct TileScales {
  float scale[kTile] = {}, offset[kTile] = {};

  void read(const char* const* of, int begin, int end, int lanes) {
    for (int v = begin / lanes; v * lanes < end; ++v) {
      store_some(scale + v * lanes, Kv::scales(of[v], lanes), lanes);
      if constexpr (Kv::kHasOffsets) store_some(offset + v * lanes, Kv::offsets(of[v], lanes), lanes);
    }
  }
  // Sums over codes to scores; q_sum: of the query's numbers.
  void finish_scores(float* scores, float q_sum) const {
    for (int i = 0; i < kTile; i += kLanes) {
      Vec score = load(scores + i) * load(scale + i);
      if constexpr (Kv::kHasOffsets) score = fma(load(offset + i), broadcast(q_sum), score);
      store(scores + i, score);
    }
  }
  // Weights of positions [begin, end) to those of codes. Returns what the offsets add to each dimension.
  float take_weights(float* weights, int begin, int end) const {
    IntVec position;
    for (int i = 0; i < kLanes; ++i) position[i] = i;
    Vec lift{};
    for (int i = 0; i < kTile; i += kLanes) {
      const Vec weight = load(weights + i);
      if constexpr (Kv::kHasOffsets)
        lift += (position >= begin) & (position < end) ? weight * load(offset + i) : Vec{};
      store(weights + i, weight * load(scale + i));
      position += kLanes;
    }
    return Kv::kHasOffsets ? reduce_add(lift) : 0;
  }
};

// Adds what a chunk leaves to that of the chunks before it: out [value_dim] and its maximum and sum (0: none
// yet).
inline void merge_chunk(const float* values, float maximum, float sum, int value_dim, float* out,
                        float& out_maximum, float& out_sum) {
  if (sum == 0) return;  // sees nothing of this one
  if (out_sum == 0) {
    std::memcpy(out, values, value_dim * sizeof(float));
    out_maximum = maximum;
    out_sum = sum;
    return;
  }
  const float most = maximum > out_maximum ? maximum : out_maximum;
  const Vec before = broadcast(exp(broadcast(out_maximum - most))[0]);
  const Vec now = broadcast(exp(broadcast(maximum - most))[0]);
  for_vectors(value_dim, [&](int64_t d, int lanes) {
    store_some(out + d, fma(load_some(values + d, lanes), now, load_some(out + d, lanes) * before), lanes);
  });
  out_maximum = most;
  out_sum = fma(broadcast(sum), now, broadcast(out_sum) * before)[0];
}

// Every vector sees its own position, so sum > 0. A sink is merged as one more chunk, whose values are zeros.
inline void finish(float* out, int value_dim, const float* sink, float maximum, float sum) {
  if (sink != nullptr) {
    const float most = *sink > maximum ? *sink : maximum;
    const float before = exp(broadcast(maximum - most))[0], now = exp(broadcast(*sink - most))[0];
    for (int d = 0; d < value_dim; ++d) out[d] *= before;
    sum = fma(broadcast(sum), broadcast(before), broadcast(now))[0];
  }
  for (int d = 0; d < value_dim; ++d) out[d] /= sum;
}

void merge_chunks(const float* partials, int64_t stride, int num_chunks, int value_dim, const float* sink,
                  float* out) {
  float maximum = kMinusInfinity, sum = 0;
  for (int c = 0; c < num_chunks; ++c) {
    const float* const chunk = partials + c * stride;
    merge_chunk(chunk, chunk[value_dim], chunk[value_dim + 1], value_dim, out, maximum, sum);
  }
  finish(out, value_dim, sink, maximum, sum);
}

template <class Kv>
void attend(const AttendArgs& args) {
  static constexpr AttendKernels<Kv> kKernels = attend_kernels<Kv>();
  static constexpr AttendKernels<F32Kv> kWideKernels = attend_kernels<F32Kv>();
  const int head_dim = args.head_dim, value_dim = args.value_dim;
  const int vectors = args.num_rows * args.heads;
  const int block_size = 1 << args.block_shift;
  const int lanes = block_size < kLanes ? block_size : kLanes;  // positions in a vector
  float* const q = args.scratch;                                // groups of [head_dim][group size], scaled
  float* const acc = q + vectors * head_dim;                    // [vectors][value_dim]
  float* const maximum = acc + vectors * value_dim;             // [vectors]
  float* const sum = maximum + vectors;                         // [vectors]
  float* const out_maximum = sum + vectors;                     // [vectors], of the chunks before
  float* const out_sum = out_maximum + vectors;                 // [vectors]
  float* const q_sum = out_sum + vectors;                       // [vectors], where codes have offsets
  float* const lift = q_sum + vectors;                          // [vectors], likewise: what they add to acc
  float* const scores = lift + vectors;                         // [kMaxGroup][kTile]
  float* const wide_keys = scores + kMaxGroup * kTile;          // as widen_tile() has them, and the next
  float* const wide_values = wide_keys + kTile * head_dim;
  const auto position_of = [&](int vector) { return args.first_pos + vector / args.heads; };
  const auto take_queries = [&](const float* queries) {
    for (int base = 0; base < vectors; base += kMaxGroup) {
      const int group = vectors - base < kMaxGroup ? vectors - base : kMaxGroup;
      for (int m = 0; m < group; ++m) {
        const int row = (base + m) / args.heads, head = (base + m) % args.heads;
        const float* const from = queries + row * args.q_stride + head * head_dim;
        for (int d = 0; d < head_dim; ++d) q[base * head_dim + d * group + m] = from[d] * args.scale;
        if constexpr (Kv::kHasOffsets) {
          q_sum[base + m] = 0;
          for (int d = 0; d < head_dim; ++d) q_sum[base + m] += q[base * head_dim + d * group + m];
        }
      }
    }
  };
  const auto start_chunk = [&] {
    std::memset(acc, 0, static_cast<size_t>(vectors) * value_dim * sizeof(float));
    for (int v = 0; v < vectors; ++v) {
      maximum[v] = kMinusInfinity;
      sum[v] = 0;
      if constexpr (Kv::kHasOffsets) lift[v] = 0;
    }
  };
  const auto out_of = [&](int v) {
    return args.out + v / args.heads * args.out_stride + v % args.heads * value_dim;
  };
  const auto end_chunk = [&](int chunk) {
    for (int v = 0; v < vectors; ++v) {
      float* const values = acc + v * value_dim;
      if constexpr (Kv::kHasOffsets) {
        for (int d = 0; d < value_dim; ++d) values[d] += lift[v];
      }
      if (args.partials == nullptr) {
        merge_chunk(values, maximum[v], sum[v], value_dim, out_of(v), out_maximum[v], out_sum[v]);
        continue;
      }
      float* const to = args.partials + (chunk - args.begin / kChunk) * args.partial_stride +
                        v * (value_dim + kPartialExtra);
      std::memcpy(to, values, value_dim * sizeof(float));
      to[value_dim] = maximum[v];
      to[value_dim + 1] = sum[v];
    }
  };
  for (int v = 0; v < vectors; ++v) out_sum[v] = 0;

  // First to the far keys, then to those that are near. What vectors see only moves on from one to the next.
  for (int pass = args.far_q != nullptr ? 0 : 1; pass < 2; ++pass) {
    const bool is_far = pass == 0;
    const int near = args.far_q != nullptr ? args.near : args.window;
    const auto first_seen = [&](int vector) {
      const int position = position_of(vector);
      if (near < 0) return position / -near * -near;
      return !is_far && near > 0 && position >= near ? position - near + 1 : 0;
    };
    const auto last_seen = [&](int vector) {
      const int position = position_of(vector), far = position - near;
      if (!is_far) return args.seen_end > 0 ? args.seen_end - 1 : position;
      return args.num_far > 0 && far >= args.num_far ? args.num_far - 1 : far;
    };
    take_queries(is_far ? args.far_q : args.q);
    const int seen_first = first_seen(0), seen_last = last_seen(vectors - 1);
    const int first = seen_first > args.begin ? seen_first : args.begin;
    const int last = seen_last < args.end ? seen_last : args.end - 1;
    if (last < first) continue;
    // What some row of the call sees of the tile at `start`.
    const auto begin_in = [&](int start) { return first > start ? first - start : 0; };
    const auto end_in = [&](int start) { return last - start + 1 < kTile ? last - start + 1 : kTile; };
    // Blocks lie anywhere, so that hardware does not guess the next one. Few vectors wait for memory: they
    // fetch the next tile while they work on this one. More of them work longer on a tile than its memory
    // takes.
    const bool streams = vectors <= kMaxGroup;
    // Several groups widen a tile but once: the same numbers in the same order.
    const bool widens = Kv::kPairBytes < F32Kv::kPairBytes && vectors > 2 * kMaxGroup;
    TilePointers<F32Kv> wide;
    TilePointers<Kv> at, ahead;
    [[maybe_unused]] TileScales<Kv> of_keys, of_values;
    const int first_tile = first / kTile * kTile;
    at.point(args, first_tile, begin_in(first_tile), end_in(first_tile), lanes);
    for (int start = first_tile; start <= last; start += kTile) {
      if (start == first_tile || start % kChunk == 0) start_chunk();
      const int begin = begin_in(start), end = end_in(start);
      ahead = at;
      if (start + kTile <= last) ahead.point(args, start + kTile, 0, end_in(start + kTile), lanes);
      if constexpr (Kv::kHasScales) {
        of_keys.read(at.key_scales, begin, end, lanes);
        of_values.read(at.value_scales, begin, end, lanes);
        for (int v = 0; v * lanes < kTile && streams; ++v) {
          __builtin_prefetch(ahead.key_scales[v], 0, 2);
          __builtin_prefetch(ahead.value_scales[v], 0, 2);
        }
      }
      if (widens) widen_tile(at, head_dim, value_dim, block_size, begin, end, lanes, wide_keys, wide_values, wide);
      for (int base = 0; base < vectors; base += kMaxGroup) {
        const int group = vectors - base < kMaxGroup ? vectors - base : kMaxGroup;
        if (last_seen(base + group - 1) < start || first_seen(base) >= start + kTile)
          continue;  // later rows see later positions
        const auto sees = [&](int v) {
          return args.chosen == nullptr
                     ? ~uint64_t{0}
                     : chosen_in_tile(args.chosen + v / args.heads * args.chosen_words, args.chosen_block, start);
        };
        uint64_t some = 0;
        for (int m = 0; m < group; ++m) {
          if (m == 0 || (base + m) % args.heads == 0) some |= sees(base + m);
        }
        if (some == 0) continue;
        if (widens) {
          kWideKernels.score[group - 1](q + base * head_dim, head_dim, kTile, wide.keys, nullptr, kLanes, begin / kLanes,
                                        (end + kLanes - 1) / kLanes, scores);
        } else {
          kKernels.score[group - 1](q + base * head_dim, head_dim, block_size, at.keys,
                                    streams ? ahead.keys : nullptr, lanes, begin / lanes,
                                    (end + lanes - 1) / lanes, scores);
        }
        // Vectors that see the same positions of the tile take their values together.
        float factor[kMaxGroup];
        int from = 0, run_begin = 0, run_end = 0;
        const auto finish_run = [&](int to) {
          if (to > from && run_begin < run_end) {
            if (widens)
              kWideKernels.add[to - from - 1](scores + from * kTile, run_begin, run_end, wide.pairs, nullptr, value_dim,
                                              factor + from, acc + (base + from) * value_dim);
            else
              kKernels.add[to - from - 1](scores + from * kTile, run_begin, run_end, at.pairs,
                                          streams ? ahead.pairs : nullptr, value_dim, factor + from,
                                          acc + (base + from) * value_dim);
          }
          from = to;
        };
        for (int m = 0; m < group; ++m) {
          const int v = base + m;
          const int lowest = first_seen(v), highest = last_seen(v);
          const int my_begin = lowest > start ? lowest - start : 0;
          int my_end = highest - start + 1 < kTile ? highest - start + 1 : kTile;
          const uint64_t mine = args.chosen == nullptr ? 1 : within(sees(v), my_begin, my_end);
          if (mine == 0) my_end = my_begin;
          if (my_begin != run_begin || my_end != run_end) {
            finish_run(m);
            run_begin = my_begin;
            run_end = my_end;
          }
          if (my_begin >= my_end) continue;
          if constexpr (Kv::kHasScales) of_keys.finish_scores(scores + m * kTile, Kv::kHasOffsets ? q_sum[v] : 0);
          if (args.soft_cap > 0) soft_cap(scores + m * kTile, args.soft_cap, kTile);
          if (args.slopes != nullptr)
            lower_by_distance(scores + m * kTile, args.slopes[v % args.heads], position_of(v) - start);
          if (args.chosen != nullptr) hide(scores + m * kTile, mine);
          factor[m] = soften(scores + m * kTile, my_begin, my_end, maximum[v], sum[v]);
          if constexpr (Kv::kHasScales) {
            const float lifted = of_values.take_weights(scores + m * kTile, my_begin, my_end);
            if constexpr (Kv::kHasOffsets) lift[v] = lift[v] * factor[m] + lifted;
          }
        }
        finish_run(group);
      }
      at = ahead;
      if ((start + kTile) % kChunk == 0 || start + kTile > last) end_chunk(start / kChunk);
    }
  }
  if (args.partials == nullptr) {
    for (int v = 0; v < vectors; ++v) {
      const float* const sink = args.sinks != nullptr ? args.sinks + v % args.heads : nullptr;
      finish(out_of(v), value_dim, sink, out_maximum[v], out_sum[v]);
    }
  }
}

template <class Kv>
void index_scores(const IndexArgs& args) {
  static constexpr AttendKernels<Kv> kKernels = attend_kernels<Kv>();
  const int block_size = 1 << args.block_shift, dim = args.dim;
  const int lanes = block_size < kLanes ? block_size : kLanes;  // positions in a vector
  float* const q = args.scratch;                                // groups of [dim][group size]
  float* const scores = q + args.heads * dim;                   // [kMaxGroup][kTile]
  const auto size_of = [&](int base) { return args.heads - base < kMaxGroup ? args.heads - base : kMaxGroup; };
  for (int base = 0; base < args.heads; base += kMaxGroup) {
    const int group = size_of(base);
    for (int m = 0; m < group; ++m) {
      for (int d = 0; d < dim; ++d) q[base * dim + d * group + m] = args.q[(base + m) * args.q_stride + d];
    }
  }
  const char* keys[kTile / 4] = {};
  const auto put = [&](float* out, const float* from, int count) {
    for (int i = 0; i < count; ++i) out[i] = args.adds ? out[i] + from[i] : from[i];
  };
  for (int start = args.begin; start < args.end; start += kTile) {
    const int count = args.end - start < kTile ? args.end - start : kTile;
    for (int v = 0; v * lanes < count; ++v) {
      const int position = start + v * lanes, index = position >> args.block_shift;
      const char* const block = index < args.tail_block
                                    ? args.keys + args.blocks[index] * args.key_block_bytes + args.key_offset
                                    : args.tail + (index - args.tail_block) * args.tail_block_bytes;
      keys[v] = block + static_cast<size_t>(position & (block_size - 1)) * Kv::kLaneBytes;
    }
    Vec sum[kTile / kLanes] = {};
    for (int base = 0; base < args.heads; base += kMaxGroup) {
      const int group = size_of(base);
      kKernels.score[group - 1](q + base * dim, dim, block_size, keys, nullptr, lanes, 0, (count + lanes - 1) / lanes,
                                scores);
      for (int m = 0; m < group; ++m) {
        if (args.weights == nullptr) {
          put(args.out + (base + m) * args.out_stride + start, scores + m * kTile, count);
          continue;
        }
        const Vec weight = broadcast(args.weights[base + m]);
        for (int i = 0; i < kTile / kLanes; ++i)
          sum[i] = fma(max(load(scores + m * kTile + i * kLanes), Vec{}), weight, sum[i]);
      }
    }
    if (args.weights == nullptr) continue;
    for (int i = 0; i < kTile / kLanes; ++i) store(scores + i * kLanes, sum[i]);
    put(args.out + start, scores, count);
  }
}

}  // namespace
}  // namespace serval::cpu
