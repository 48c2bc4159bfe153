// The matrix product over packed panels (kernel_table.h describes the layout). A register tile holds MR rows
// by NV vectors of outputs; each k costs NV weight loads and MR broadcasts for MR * NV multiply-adds.
// Included by hot_kernels.cc alone.
#pragma once

#include <type_traits>
#include <utility>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/simd.h"

namespace serval::cpu {
namespace {

inline constexpr int kPanelVecs = kPanel / kLanes;
inline constexpr int64_t kWideK =
    128;  // k whose weights are widened at a time: 16 KiB, in the first-level cache

// Tiles use most of the registers (32, or 16 before AVX-512); few rows take the whole panel at once, so that
// a weight-bound product reads its panel in one stream.
#if defined(__AVX512F__)
inline constexpr int kTileRows = 12;
constexpr int tile_vecs(int) {
  return 2;
}
#elif defined(__AVX2__)
inline constexpr int kTileRows = 6;
constexpr int tile_vecs(int rows) {
  return rows <= 2 ? 4 : 2;
}
#else
inline constexpr int kTileRows = 3;
constexpr int tile_vecs(int rows) {
  return rows == 1 ? 8 : 4;
}
#endif

// Formats: how many k one step takes, and what a step does to the accumulators. `a` are the step's packed
// activations, `w` its weights for NV vectors of outputs.

// Stored weights as floats, exactly: weight j of a step for the kLanes outputs at w.
struct F32Weights {
  static constexpr int kStep = 1, kLaneBytes = 4;
  static constexpr int kStepBytes = 4 * kPanel;  // of a panel
  static Vec at(const char* w, int) { return load(reinterpret_cast<const float*>(w)); }
};
struct F16Weights {
  static constexpr int kStep = 1, kLaneBytes = 2;
  static constexpr int kStepBytes = 2 * kPanel;
  static Vec at(const char* w, int) { return load_halves(reinterpret_cast<const uint16_t*>(w)); }
};
struct Bf16Weights {
  static constexpr int kStep = 2, kLaneBytes = 4;
  static constexpr int kStepBytes = 4 * kPanel;
  static Vec at(const char* w, int j) { return j == 0 ? even_of(load_ints(w)) : odd_of(load_ints(w)); }
};
// f32 activations.
template <class Weights>
struct FmaFormat : Weights {
  using Element = float;
  // Whether widening takes so much that several tiles should share it.
  static constexpr bool kWidensOnce = std::is_same_v<Weights, F16Weights>;
  static Element pack(float x) { return x; }

  template <int MR, int NV>
  static void step(Vec (&acc)[MR][NV], const Element* a, const char* w) {
#pragma GCC unroll 2
    for (int j = 0; j < Weights::kStep; ++j) {
      Vec weight[NV];
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) weight[v] = Weights::at(w + v * kLanes * Weights::kLaneBytes, j);
#pragma GCC unroll 16
      for (int m = 0; m < MR; ++m) {
        const Vec x = broadcast(a[Weights::kStep * m + j]);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) acc[m][v] = fma(weight[v], x, acc[m][v]);
      }
    }
  }
};

#if defined(__AVX512BF16__)
// bf16 by bf16 with the dot product instruction: activations are rounded to bf16, each row by itself; sums
// are f32.
struct Bf16DotFormat : Bf16Weights {
  using Element = uint16_t;
  static constexpr bool kWidensOnce = false;

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

// Steps of k over one tile, all vectors of the panel. Row m's accumulators begin as from[m * from_stride ..]
// and go to out[m * out_stride ..].
template <class Format, int MR>
void multiply_tile(const typename Format::Element* a, const char* weights, int64_t steps, Prefetch prefetch,
                   const float* from, int64_t from_stride, float* out, int64_t out_stride) {
  constexpr int NV = tile_vecs(MR);
  constexpr int kLocality = is_short(MR) ? 3 : 2;  // the first or the second level of cache
  for (int part = 0; part < kPanelVecs; part += NV) {
    Vec acc[MR][NV];
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) acc[m][v] = load(from + m * from_stride + (part + v) * kLanes);
    }
    const typename Format::Element* step_a = a;
    const char* w = weights + part * kLanes * Format::kLaneBytes;
    const char* ahead = prefetch.at;
    for (int64_t s = 0; s < steps; ++s) {
      __builtin_prefetch(ahead, 0, kLocality);
      if constexpr (Format::kStepBytes > 64) __builtin_prefetch(ahead + 64, 0, kLocality);
      Format::step(acc, step_a, w);
      step_a += MR * Format::kStep;
      w += Format::kStepBytes;
      ahead += prefetch.bytes;
    }
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) store(out + m * out_stride + (part + v) * kLanes, acc[m][v]);
    }
  }
}

template <class Format>
struct Tiles {
  void (*of[kTileRows])(const typename Format::Element*, const char*, int64_t, Prefetch, const float*,
                        int64_t, float*, int64_t);
};
template <class Format>
constexpr Tiles<Format> kTiles = []<int... Row>(std::integer_sequence<int, Row...>) {
  return Tiles<Format>{{multiply_tile<Format, Row + 1>...}};
}
(std::make_integer_sequence<int, kTileRows>{});

inline void copy_columns(const float* from, int64_t from_stride, float* to, int64_t to_stride, int rows,
                         int columns) {
  for (int m = 0; m < rows; ++m)
    std::memcpy(to + m * to_stride, from + m * from_stride, columns * sizeof(float));
}

template <class Weights>
void widen_block(const char* weights, int64_t k, float* wide) {
  for (int64_t i = 0; i < k; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < kPanelVecs; ++v)
      store(wide + v * kLanes, Weights::at(weights + v * kLanes * Weights::kLaneBytes, 0));
    weights += Weights::kStepBytes;
    wide += kPanel;
  }
}

template <class Format>
void multiply_panel(const PanelArgs& args) {
  using Element = typename Format::Element;
  const int64_t steps = (args.k + Format::kStep - 1) / Format::kStep;
  const auto* const weights = static_cast<const char*>(args.weights);
  const int64_t ahead = is_short(args.tile_rows) ? 2048 : 8192;
  // One tile fetches a little ahead of itself. Several tiles compute on a slice of the panel that is in
  // cache, widened once for all of them, and fetch the next panel meanwhile, each its share.
  const bool alone = args.num_tiles == 1;
  Prefetch prefetch = alone ? Prefetch{weights + ahead, Format::kStepBytes}
                            : Prefetch{weights + args.panel_bytes, Format::kStepBytes / args.num_tiles};
  // A panel that is not whole is computed here and copied, so that tiles know whole ones only.
  const bool whole = args.valid == kPanel;
  alignas(64) float start[kPanel] = {}, edge[kTileRows * kPanel] = {};
  if (args.bias != nullptr) copy_columns(args.bias, 0, start, 0, 1, args.valid);
  const auto multiply = [&]<class Of>(const Tiles<Of>& tiles, const char* slice, int64_t first,
                                      int64_t count) {
    const auto* tile = static_cast<const Element*>(args.activations);
    float* out = args.out;
    for (int t = 0; t < args.num_tiles; ++t) {
      const int rows = args.tile_rows + (t < args.tall_tiles ? 1 : 0);
      float* const to = whole ? out : edge;
      const int64_t stride = whole ? args.out_stride : kPanel;
      if (!whole && first > 0) copy_columns(out, args.out_stride, edge, kPanel, rows, args.valid);
      tiles.of[rows - 1](tile + first * rows * Format::kStep, slice, count, prefetch, first > 0 ? to : start,
                         first > 0 ? stride : 0, to, stride);
      if (!whole) copy_columns(edge, kPanel, out, args.out_stride, rows, args.valid);
      prefetch.at += count * prefetch.bytes;
      tile += steps * rows * Format::kStep;
      out += rows * args.out_stride;
    }
  };
  if (alone) {
    multiply(kTiles<Format>, weights, 0, steps);
  } else if constexpr (Format::kWidensOnce) {
    alignas(64) float wide[kWideK * kPanel];
    for (int64_t first = 0; first < steps; first += kWideK) {
      const int64_t count = steps - first < kWideK ? steps - first : kWideK;
      widen_block<Format>(weights + first * Format::kStepBytes, count, wide);
      multiply(kTiles<FmaFormat<F32Weights>>, reinterpret_cast<const char*>(wide), first, count);
    }
  } else {
    constexpr int64_t kSteps = (256 << 10) / Format::kStepBytes;  // fits the second-level cache
    for (int64_t first = 0; first < steps; first += kSteps)
      multiply(kTiles<Format>, weights + first * Format::kStepBytes, first,
               steps - first < kSteps ? steps - first : kSteps);
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
  return {.max_rows = kTileRows,
          .k_multiple = Format::kStep,
          .element_bytes = sizeof(typename Format::Element),
          .direct_single = Format::kStep == 1,
          .pack = pack_tile<Format>,
          .panel = multiply_panel<Format>};
}

}  // namespace
}  // namespace serval::cpu
