// Products of bytes with 32-bit sums (dot_table.h), compiled once per set of instructions: CMake gives each copy its
// flags and names its table in SERVAL_TABLE. Nothing here may be visible to another copy but that table.
#include "kernels/cpu/dot_table.h"
#include "kernels/cpu/simd.h"

namespace serval::cpu {
namespace {

constexpr int kVecs = kPanel / kLanes;

// The weights of four neighbours of k, one output a lane, and a row's codes of those k in every lane; dot() adds their
// products to each lane. Where there is no instruction for it, bytes are widened to pairs of 16 bits: k 0 and 2, 1 and 3.
#if defined(__AVX512VNNI__) || (defined(__AVXVNNI__) && !defined(__AVX512F__))
#define SERVAL_HAS_VNNI 1
#endif

#if defined(SERVAL_HAS_VNNI)
struct Weights {
  IntVec bytes;
};
struct Codes {
  IntVec bytes;
};
inline Weights weights_at(const char* p) {
  return {load_ints(p)};
}
inline Codes codes_of(int32_t four) {
  return {IntVec{} + four};
}
inline IntVec dot(IntVec sums, const Weights& w, const Codes& x) {
#if defined(__AVX512VNNI__)
  return (IntVec)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)x.bytes, (__m512i)w.bytes);
#else
  return (IntVec)_mm256_dpbusd_avx_epi32((__m256i)sums, (__m256i)x.bytes, (__m256i)w.bytes);
#endif
}
#elif defined(__SSE2__)
using Words = int16_t __attribute__((vector_size(kLanes * 4)));
struct Weights {
  Words even, odd;
};
struct Codes {
  IntVec even, odd;
};
inline Weights weights_at(const char* p) {
  const auto words = reinterpret_cast<Words>(load_ints(p));
  return {(words << 8) >> 8, words >> 8};
}
inline Codes codes_of(int32_t four) {
  return {IntVec{} + (four & 0x00ff00ff), IntVec{} + (four >> 8 & 0x00ff00ff)};
}
inline IntVec multiply_pairs(Words a, IntVec b) {
#if defined(__AVX512F__)
  return (IntVec)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (IntVec)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
  return (IntVec)_mm_madd_epi16((__m128i)a, (__m128i)b);
#endif
}
inline IntVec dot(IntVec sums, const Weights& w, const Codes& x) {
  return sums + (multiply_pairs(w.even, x.even) + multiply_pairs(w.odd, x.odd));
}
#else
struct Weights {
  IntVec bytes[4];
};
struct Codes {
  IntVec bytes[4];
};
inline Weights weights_at(const char* p) {
  const IntVec four = load_ints(p);
  return {{(four << 24) >> 24, (four << 16) >> 24, (four << 8) >> 24, four >> 24}};
}
inline Codes codes_of(int32_t four) {
  return {{IntVec{} + (four & 255), IntVec{} + (four >> 8 & 255), IntVec{} + (four >> 16 & 255), IntVec{} + (four >> 24 & 255)}};
}
inline IntVec dot(IntVec sums, const Weights& w, const Codes& x) {
  return sums + (w.bytes[0] * x.bytes[0] + w.bytes[1] * x.bytes[1]) + (w.bytes[2] * x.bytes[2] + w.bytes[3] * x.bytes[3]);
}
#endif

// Rows of a register tile, and its vectors of outputs.
#if defined(__AVX512F__)
constexpr int kTileRows = 12;
constexpr int tile_vecs(int) {
  return 2;
}
#elif defined(__AVX2__)
constexpr int kTileRows = 4;
constexpr int tile_vecs(int rows) {
  return rows == 1 ? 4 : 2;
}
#else
constexpr int kTileRows = 3;
constexpr int tile_vecs(int rows) {
  return rows == 1 ? 4 : 2;
}
#endif

// What a vector of sums comes to, with the same bits in every set: nothing here is fused.
inline Vec finished(IntVec sums, const DotScales& scales, int v, Vec row_scale, Vec bias) {
  const Vec factor = load(scales.scale + v * kLanes) * row_scale;
  return to_floats(sums - load_ints(scales.excess + v * kLanes)) * factor + bias;
}

// Rows of sums [num_rows][kPanel] that lie in memory, from `row` on.
inline void finish(const DotArgs& args, int row, int num_rows, const int32_t* sums) {
  alignas(64) float bias[kPanel] = {}, edge[kPanel];
  if (args.bias != nullptr) std::memcpy(bias, args.bias, args.valid * sizeof(float));
  for (int m = 0; m < num_rows; ++m) {
    float* const out = args.out + (row + m) * args.out_stride;
    float* const to = args.valid == kPanel ? out : edge;
    const Vec row_scale = broadcast(args.row_scales[row + m]);
    for (int v = 0; v < kVecs; ++v)
      store(to + v * kLanes,
            finished(load_ints(sums + m * kPanel + v * kLanes), *args.scales, v, row_scale, load(bias + v * kLanes)));
    if (to == edge) std::memcpy(out, edge, args.valid * sizeof(float));
  }
}

template <int MR>
void sum_tile(const DotArgs& args, int row, int32_t* sums) {
  constexpr int NV = tile_vecs(MR);
  constexpr int kAhead = 4096;
  const uint8_t* const codes = args.rows + row * args.k;
  for (int part = 0; part < kVecs; part += NV) {
    IntVec acc[MR][NV] = {};
    const char* w = reinterpret_cast<const char*>(args.weights) + part * sizeof(IntVec);
    for (int64_t i = 0; i < args.k; i += 4, w += 4 * kPanel) {
      if (MR <= 4) {
        __builtin_prefetch(w + kAhead);
        __builtin_prefetch(w + kAhead + 64);
      }
      Weights weight[NV];
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) weight[v] = weights_at(w + v * sizeof(IntVec));
#pragma GCC unroll 16
      for (int m = 0; m < MR; ++m) {
        int32_t four;
        std::memcpy(&four, codes + m * args.k + i, sizeof four);
        const Codes x = codes_of(four);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) acc[m][v] = dot(acc[m][v], weight[v], x);
      }
    }
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) std::memcpy(sums + m * kPanel + (part + v) * kLanes, &acc[m][v], sizeof(IntVec));
    }
  }
}

template <int MR>
void sum_rows(const DotArgs& args, int row, int rows, int32_t* sums) {
  if (rows == MR) return sum_tile<MR>(args, row, sums);
  if constexpr (MR > 1) sum_rows<MR - 1>(args, row, rows, sums);
}

// Tiles of nearly equal height.
void vector_panel(const DotArgs& args) {
  alignas(64) int32_t sums[kTileRows * kPanel];
  const int tiles = (args.num_rows + kTileRows - 1) / kTileRows;
  for (int t = 0; t < tiles; ++t) {
    const int row = t * args.num_rows / tiles, rows = (t + 1) * args.num_rows / tiles - row;
    sum_rows<kTileRows>(args, row, rows, sums);
    finish(args, row, rows, sums);
  }
}

#if defined(__AMX_INT8__)
// Tiles of 16 rows by 64 bytes (Intel AMX): two of rows' codes by two of weights, which are as the panel has them, make
// four of sums. The codes and weights that a tile multiplies at once are those of a step.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  TileConfig(int upper, int lower) {
    const int heights[] = {upper, upper, lower, lower, upper, lower, 16, 16};
    for (int i = 0; i < 8; ++i) {
      rows[i] = static_cast<uint8_t>(heights[i] == 0 ? 1 : heights[i]);
      row_bytes[i] = 64;
    }
  }
};

constexpr int kTileHeight = 16;
constexpr int kFewRows = kTileRows;  // that registers do faster

void amx_panel(const DotArgs& args) {
  if (args.num_rows <= kFewRows) return vector_panel(args);
  alignas(64) int32_t sums[2 * kTileHeight * kPanel];
  constexpr int kSumStride = kPanel * sizeof(int32_t);
  int configured = 0;
  for (int row = 0; row < args.num_rows; row += 2 * kTileHeight) {
    const int rows = args.num_rows - row < 2 * kTileHeight ? args.num_rows - row : 2 * kTileHeight;
    const int upper = rows < kTileHeight ? rows : kTileHeight, lower = rows - upper;
    if (rows != configured) {
      const TileConfig config(upper, lower);
      _tile_loadconfig(&config);
      configured = rows;
    }
    const uint8_t* const codes = args.rows + row * args.k;
    const int8_t* w = args.weights;
    _tile_zero(0);
    _tile_zero(1);
    if (lower > 0) {
      _tile_zero(2);
      _tile_zero(3);
      for (int64_t i = 0; i < args.k; i += kDotStep, w += kDotStep * kPanel) {
        _tile_loadd(6, w, 4 * kPanel);
        _tile_loadd(7, w + 64, 4 * kPanel);
        _tile_loadd(4, codes + i, args.k);
        _tile_loadd(5, codes + kTileHeight * args.k + i, args.k);
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
      }
      _tile_stored(2, sums + kTileHeight * kPanel, kSumStride);
      _tile_stored(3, sums + kTileHeight * kPanel + kPanel / 2, kSumStride);
    } else {
      for (int64_t i = 0; i < args.k; i += kDotStep, w += kDotStep * kPanel) {
        _tile_loadd(6, w, 4 * kPanel);
        _tile_loadd(7, w + 64, 4 * kPanel);
        _tile_loadd(4, codes + i, args.k);
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
      }
    }
    _tile_stored(0, sums, kSumStride);
    _tile_stored(1, sums + kPanel / 2, kSumStride);
    finish(args, row, rows, sums);
  }
  _tile_release();
}
constexpr auto kPanelOf = amx_panel;
#else
constexpr auto kPanelOf = vector_panel;
#endif

void round_row(const float* x, int64_t k, int64_t padded, uint8_t* codes, float* scale) {
  constexpr float kLargest = 0x1.fffffep127f, kLeast = 0x1p-100f, kToInteger = 0x1.8p23f;
  const auto magnitude = [](Vec v) { return as_floats(as_ints(v) & 0x7fffffff); };
  Vec most{};
  IntVec is_finite = IntVec{} - 1;
  const auto look = [&](Vec v) {
    most = max(magnitude(v), most);
    is_finite &= magnitude(v) <= broadcast(kLargest);
  };
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) look(load(x + i));
  if (i < k) look(load_part(x + i, static_cast<int>(k - i)));
  bool all_finite = true;
  for (int lane = 0; lane < kLanes; ++lane) all_finite &= is_finite[lane] != 0;
  const float largest = reduce_max(most);
  if (!all_finite || !(largest >= kLeast)) {
    std::memset(codes, 128, padded);
    *scale = all_finite ? 0 : __builtin_nanf("");
    return;
  }
  *scale = largest / 127;
  const Vec factor = broadcast(127 / largest);
  using Bytes = uint8_t __attribute__((vector_size(kLanes)));
  const auto round = [&](Vec v, uint8_t* to, int count) {
    const IntVec code = as_ints(v * factor + kToInteger) - as_ints(broadcast(kToInteger)) + 128;
    const Bytes bytes = __builtin_convertvector(code, Bytes);
    std::memcpy(to, &bytes, count);
  };
  for (i = 0; i + kLanes <= k; i += kLanes) round(load(x + i), codes + i, kLanes);
  if (i < k) round(load_part(x + i, static_cast<int>(k - i)), codes + i, static_cast<int>(k - i));
  std::memset(codes + k, 128, padded - k);
}

}  // namespace

#define SERVAL_STRING_OF(x) #x
#define SERVAL_STRING(x) SERVAL_STRING_OF(x)

extern const DotTable SERVAL_TABLE;
const DotTable SERVAL_TABLE = {.name = SERVAL_STRING(SERVAL_ISA), .round_row = round_row, .panel = kPanelOf};

}  // namespace serval::cpu
