// Products of bytes, and of 4 bits by bytes, with 32-bit sums (dot_table.h), compiled once per set of instructions: CMake gives each copy its
// flags and names its table in SERVAL_TABLE. Nothing here may be visible to another copy but that table.
#include "kernels/cpu/dot_table.h"
#include "kernels/cpu/dot_vectors.h"
#include "kernels/cpu/hot_nibbles.h"
#include "kernels/cpu/simd.h"

namespace serval::cpu {
namespace {

// Rows of a register tile, and its vectors of outputs.
#if defined(__AVX512F__)
constexpr int kTileRows = 8;
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

// What sums [num_rows][kPanel] of bytes come to, with the same bits in every set: nothing here is fused.
inline void finish(const DotArgs& args, int row, int num_rows, const int32_t* sums) {
  store_rows(args, row, num_rows, [&](int m, int v, Vec bias) {
    const Vec factor = load(args.scales->scale + v * kLanes) * broadcast(args.row_scales[row + m]);
    return to_floats(load_ints(sums + m * kPanel + v * kLanes) - load_ints(args.scales->excess + v * kLanes)) * factor + bias;
  });
}

template <int MR>
void sum_tile(const DotArgs& args, int row, Prefetch ahead, int32_t* sums) {
  constexpr int NV = tile_vecs(MR);
  const uint8_t* const codes = args.rows + row * args.k;
  for (int part = 0; part < kVecs; part += NV) {
    IntVec acc[MR][NV] = {};
    const char* w = static_cast<const char*>(args.weights) + part * sizeof(IntVec);
    const char* next = ahead.at;
    for (int64_t i = 0; i < args.k; i += 4, w += 4 * kPanel) {
      __builtin_prefetch(next);
      __builtin_prefetch(next + 64);
      next += ahead.bytes;
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

constexpr Tiles<int32_t, kTileRows> kByteTiles = []<int... Row>(std::integer_sequence<int, Row...>) {
  return Tiles<int32_t, kTileRows>{{sum_tile<Row + 1>...}};
}
(std::make_integer_sequence<int, kTileRows>{});

void vector_panel(const DotArgs& args) {
  run_tiles(args, kByteTiles, args.k / 4, 2, [&](int row, int rows, const int32_t* sums) { finish(args, row, rows, sums); });
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
constexpr int kFewRows = 12;  // that registers do faster

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
    const auto* w = static_cast<const int8_t*>(args.weights);
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

void round_row(const float* x, int64_t k, int64_t padded, uint8_t zero, uint8_t* codes, float* scale) {
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
    std::memset(codes, zero, padded);
    *scale = all_finite ? 0 : __builtin_nanf("");
    return;
  }
  *scale = largest / 127;
  const Vec factor = broadcast(127 / largest);
  using Bytes = uint8_t __attribute__((vector_size(kLanes)));
  const auto round = [&](Vec v, uint8_t* to, int count) {
    const IntVec code = as_ints(v * factor + kToInteger) - as_ints(broadcast(kToInteger)) + zero;
    const Bytes bytes = __builtin_convertvector(code, Bytes);
    std::memcpy(to, &bytes, count);
  };
  for (i = 0; i + kLanes <= k; i += kLanes) round(load(x + i), codes + i, kLanes);
  if (i < k) round(load_part(x + i, static_cast<int>(k - i)), codes + i, static_cast<int>(k - i));
  std::memset(codes + k, zero, padded - k);
}

void sum_pieces(const int8_t* codes, int64_t k, int64_t piece, int32_t* sums) {
  for (int64_t begin = 0; begin < k; begin += piece) {
    const int64_t end = k - begin < piece ? k : begin + piece;
    int32_t sum = 0;
    for (int64_t i = begin; i < end; ++i) sum += codes[i];
    *sums++ = -8 * sum;
  }
}

}  // namespace

#define SERVAL_STRING_OF(x) #x
#define SERVAL_STRING(x) SERVAL_STRING_OF(x)

extern const DotTable SERVAL_TABLE;
const DotTable SERVAL_TABLE = {.name = SERVAL_STRING(SERVAL_ISA), .round_row = round_row, .sum_pieces = sum_pieces, .panel = kPanelOf, .nibble_panel = nibble_panel};

}  // namespace serval::cpu
