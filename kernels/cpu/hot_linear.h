// The matrix product over packed panels (kernel_table.h describes the layout). A register tile holds MR rows
// by NV vectors of outputs; each k costs NV weight loads and MR broadcasts for MR * NV multiply-adds.
// Included by hot_kernels.cc alone.
#pragma once

#include <utility>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/simd.h"

namespace serval::cpu {
namespace {

inline constexpr int kPanelVecs = kPanel / kLanes;

// Tiles use most of the registers (32, or 16 before AVX-512; widening takes some for itself); few rows take
// the whole panel at once, so that a weight-bound product reads its panel in one stream.
#if defined(__AVX512F__)
inline constexpr int kTileRows = 12, kWidenedTileRows = 12;
constexpr int tile_vecs(int) {
  return 2;
}
#elif defined(__AVX2__)
inline constexpr int kTileRows = 6, kWidenedTileRows = 4;
constexpr int tile_vecs(int rows) {
  return rows <= 2 ? 4 : 2;
}
#else
inline constexpr int kTileRows = 4, kWidenedTileRows = 4;
constexpr int tile_vecs(int rows) {
  return rows == 1 ? 8 : 2;
}
#endif

// Formats: how many k one step takes, and what a step does to the accumulators. `a` are the step's packed
// activations, `w` its weights for NV vectors of outputs.

struct F32Format {
  using Element = float;
  static constexpr int kMaxRows = kTileRows;
  static constexpr int kStep = 1;
  static constexpr int kOutputBytes = 4;  // of one output's weights in a step
  static Element pack(float x) { return x; }

  template <int MR, int NV>
  static void step(Vec (&acc)[MR][NV], const Element* a, const char* w) {
    Vec weight[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) weight[v] = load(reinterpret_cast<const float*>(w) + v * kLanes);
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
      const Vec x = broadcast(a[m]);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) acc[m][v] = fma(weight[v], x, acc[m][v]);
    }
  }
};

struct F16Format {
  using Element = float;
  static constexpr int kMaxRows = kTileRows;
  static constexpr int kStep = 1;
  static constexpr int kOutputBytes = 2;
  static Element pack(float x) { return x; }

  template <int MR, int NV>
  static void step(Vec (&acc)[MR][NV], const Element* a, const char* w) {
    Vec weight[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) weight[v] = load_halves(reinterpret_cast<const uint16_t*>(w) + v * kLanes);
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
      const Vec x = broadcast(a[m]);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) acc[m][v] = fma(weight[v], x, acc[m][v]);
    }
  }
};

// bf16 weights widened exactly to f32; activations stay f32.
struct Bf16WidenedFormat {
  using Element = float;
  static constexpr int kMaxRows = kWidenedTileRows;
  static constexpr int kStep = 2;
  static constexpr int kOutputBytes = 4;
  static Element pack(float x) { return x; }

  template <int MR, int NV>
  static void step(Vec (&acc)[MR][NV], const Element* a, const char* w) {
    IntVec pairs[NV];
    Vec weight[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      pairs[v] = load_ints(w + v * sizeof(IntVec));
      weight[v] = even_of(pairs[v]);
    }
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
      const Vec x = broadcast(a[2 * m]);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) acc[m][v] = fma(weight[v], x, acc[m][v]);
    }
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) weight[v] = odd_of(pairs[v]);
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
      const Vec x = broadcast(a[2 * m + 1]);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) acc[m][v] = fma(weight[v], x, acc[m][v]);
    }
  }
};

#if defined(__AVX512BF16__)
// bf16 by bf16 with the dot product instruction: activations are rounded to bf16, each row by itself; sums
// are f32.
struct Bf16DotFormat {
  using Element = uint16_t;
  static constexpr int kMaxRows = kTileRows;
  static constexpr int kStep = 2;
  static constexpr int kOutputBytes = 4;

  // Round to nearest even; a NaN stays one.
  static Element pack(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return static_cast<Element>((bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : rounded);
  }

  template <int MR, int NV>
  static void step(Vec (&acc)[MR][NV], const Element* a, const char* w) {
    __m512bh weight[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) weight[v] = (__m512bh)load_ints(w + v * sizeof(IntVec));
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
      int32_t pair;
      std::memcpy(&pair, a + 2 * m, sizeof pair);
      const __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) acc[m][v] = _mm512_dpbf16_ps(acc[m][v], weight[v], x);
    }
  }
};
#endif

// Short tiles wait for memory, tall ones for arithmetic; measured, they want to fetch ahead differently.
constexpr bool is_short(int rows) {
  return rows <= kTileRows / 3;
}

// Where a tile fetches ahead: `bytes` further at every step.
struct Prefetch {
  const char* at;
  int64_t bytes;
};

// steps of k over one tile, all vectors of the panel. resume: the accumulators are in `out` already.
template <class Format, int MR>
void multiply_tile(const typename Format::Element* a, const char* weights, int64_t steps, Prefetch prefetch,
                   bool resume, const float* bias, float* out, int64_t out_stride, int valid) {
  constexpr int NV = tile_vecs(MR);
  constexpr int kLocality = is_short(MR) ? 3 : 2;  // the first or the second level of cache
  for (int part = 0; part < kPanelVecs && part * kLanes < valid; part += NV) {
    Vec acc[MR][NV];
    const auto columns = [&](int v) { return valid - (part + v) * kLanes; };  // left from this vector on
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) {
        const float* const from = resume ? out + m * out_stride : bias;
        const float* const p = from + (part + v) * kLanes;
        acc[m][v] = from == nullptr || columns(v) <= 0 ? Vec{}
                    : columns(v) >= kLanes             ? load(p)
                                                       : load_part(p, columns(v));
      }
    }
    const typename Format::Element* step_a = a;
    const char* w = weights + part * kLanes * Format::kOutputBytes;
    const char* ahead = prefetch.at;
    for (int64_t s = 0; s < steps; ++s) {
      __builtin_prefetch(ahead, 0, kLocality);
      if constexpr (Format::kOutputBytes * kPanel > 64) __builtin_prefetch(ahead + 64, 0, kLocality);
      Format::step(acc, step_a, w);
      step_a += MR * Format::kStep;
      w += kPanel * Format::kOutputBytes;
      ahead += prefetch.bytes;
    }
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) {
        float* const p = out + m * out_stride + (part + v) * kLanes;
        if (columns(v) >= kLanes) {
          store(p, acc[m][v]);
        } else if (columns(v) > 0) {
          store_part(p, acc[m][v], columns(v));
        }
      }
    }
  }
}

template <class Format>
void multiply_panel(const PanelArgs& args) {
  using Element = typename Format::Element;
  using Tile =
      void (*)(const Element*, const char*, int64_t, Prefetch, bool, const float*, float*, int64_t, int);
  static constexpr auto kTiles = []<int... Row>(std::integer_sequence<int, Row...>) {
    struct Table {
      Tile of[sizeof...(Row)];
    };
    return Table{{multiply_tile<Format, Row + 1>...}};
  }
  (std::make_integer_sequence<int, Format::kMaxRows>{});
  constexpr int64_t kStepBytes = kPanel * Format::kOutputBytes;
  // The slice of the panel that all tiles pass over stays in the second-level cache.
  constexpr int64_t kBlockSteps = (256 << 10) / kStepBytes;

  const int64_t steps = (args.k + Format::kStep - 1) / Format::kStep;
  const int64_t block = args.num_tiles == 1 ? steps : kBlockSteps;
  const auto* const weights = static_cast<const char*>(args.weights);
  const int64_t ahead = is_short(args.tile_rows) ? 2048 : 8192;
  // One tile fetches a little ahead of itself. Several tiles compute on a panel that is in cache, and fetch
  // the next one meanwhile, each its share.
  Prefetch prefetch = args.num_tiles == 1 ? Prefetch{weights + ahead, kStepBytes}
                                          : Prefetch{weights + args.panel_bytes, kStepBytes / args.num_tiles};
  for (int64_t first = 0; first < steps; first += block) {
    const int64_t count = steps - first < block ? steps - first : block;
    const auto* tile = static_cast<const Element*>(args.activations);
    float* out = args.out;
    for (int t = 0; t < args.num_tiles; ++t) {
      const int rows = args.tile_rows + (t < args.tall_tiles ? 1 : 0);
      kTiles.of[rows - 1](tile + first * rows * Format::kStep, weights + first * kStepBytes, count, prefetch,
                          first > 0, args.bias, out, args.out_stride, args.valid);
      prefetch.at += count * prefetch.bytes;
      tile += steps * rows * Format::kStep;
      out += rows * args.out_stride;
    }
  }
}

template <class Format>
void pack_tile(const float* x, int64_t x_stride, int rows, int64_t k, void* tile) {
  constexpr int kStep = Format::kStep;
  auto* to = static_cast<typename Format::Element*>(tile);
  const int64_t whole = k / kStep;
  for (int64_t s = 0; s < whole; ++s) {
    for (int m = 0; m < rows; ++m) {
      for (int j = 0; j < kStep; ++j) *to++ = Format::pack(x[m * x_stride + s * kStep + j]);
    }
  }
  if (whole * kStep < k) {
    for (int m = 0; m < rows; ++m) {
      *to++ = Format::pack(x[m * x_stride + k - 1]);
      *to++ = 0;
    }
  }
}

template <class Format>
constexpr LinearKernel linear_kernel() {
  return {.max_rows = Format::kMaxRows,
          .k_multiple = Format::kStep,
          .element_bytes = sizeof(typename Format::Element),
          .direct_single = Format::kStep == 1,
          .pack = pack_tile<Format>,
          .panel = multiply_panel<Format>};
}

}  // namespace
}  // namespace serval::cpu
