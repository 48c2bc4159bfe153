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
inline constexpr int64_t kWideBytes = 32 << 10;  // of widened weights at a time, near the first-level cache

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
  static constexpr bool kWidensOnce = false;     // whether widening takes so much that tiles should share it
  static Vec at(const char* w, int) { return load(reinterpret_cast<const float*>(w)); }
};
struct F16Weights {
  static constexpr int kStep = 1, kLaneBytes = 2;
  static constexpr int kStepBytes = 2 * kPanel;
  static constexpr bool kWidensOnce = true;
  static Vec at(const char* w, int) { return load_halves(reinterpret_cast<const uint16_t*>(w)); }
};
struct Bf16Weights {
  static constexpr int kStep = 2, kLaneBytes = 4;
  static constexpr int kStepBytes = 4 * kPanel;
  static constexpr bool kWidensOnce = false;
  static Vec at(const char* w, int j) { return j == 0 ? even_of(load_ints(w)) : odd_of(load_ints(w)); }
};
struct Int8Weights {  // codes: their scale is the tile's last step
  static constexpr int kStep = 1, kLaneBytes = 1;
  static constexpr int kStepBytes = kPanel;
  static constexpr bool kWidensOnce = true;
  static Vec at(const char* w, int) { return load_bytes(w); }
};

// Codes whose scales are of groups: what a code means, of kStep neighbours along k the j-th.
struct Int8Codes {
  static constexpr int kStep = 1, kLaneBytes = 1, kStepBytes = kPanel;
  static Vec at(const char* w, int, const float*) { return load_bytes(w); }
};
struct Fp8Codes {
  static constexpr int kStep = 1, kLaneBytes = 1, kStepBytes = kPanel;
  static Vec at(const char* w, int, const float*) { return load_fp8(w); }
};
struct Int4Codes {
  static constexpr int kStep = 8, kLaneBytes = 4, kStepBytes = 4 * kPanel;
  static Vec at(const char* w, int j, const float*) {
#if defined(__AVX512F__)  // a table of 16 is one register: two operations instead of three
    alignas(64) static constexpr float kNumbers[] = {0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1};
    return look_up(kNumbers, load_ints(w) >> (4 * j));
#else
    return to_floats((load_ints(w) << (28 - 4 * j)) >> 28);
#endif
  }
};
struct Table4Codes {
  static constexpr int kStep = 8, kLaneBytes = 4, kStepBytes = 4 * kPanel;
  static Vec at(const char* w, int j, const float* table) { return look_up(table, load_ints(w) >> (4 * j)); }
};
struct Fp6Codes {
  static constexpr int kStep = 16, kLaneBytes = 4, kStepBytes = 3 * 4 * kPanel;
  static Vec at(const char* w, int j, const float*) {
    const auto word = [&](int i) { return load_ints(w + 4 * kPanel * i); };
    if (j < 15) return fp6_in(word(j / 5), j % 5 * 6);
    return fp6_in(((word(0) >> 30) & 3) | ((word(1) >> 28) & 12) | ((word(2) >> 26) & 48), 0);
  }
};
// Such codes once they are widened, scales and offsets applied: kStep neighbours one after the other.
template <int kNeighbours>
struct WidenedCodes {
  static constexpr int kStep = kNeighbours, kLaneBytes = 4, kStepBytes = 4 * kPanel * kNeighbours;
  static constexpr bool kWidensOnce = false;
  static Vec at(const char* w, int j) { return load(reinterpret_cast<const float*>(w) + j * kPanel); }
};

// f32 activations.
template <class Weights>
struct FmaFormat : Weights {
  using Element = float;
  // What several tiles that share a slice of the panel compute with.
  using Shared = std::conditional_t<Weights::kWidensOnce, FmaFormat<F32Weights>, FmaFormat>;
  static constexpr bool kHasGroups = false;
  static void widen_step(const char* w, char* wide) {
#pragma GCC unroll 8
    for (int v = 0; v < kPanelVecs; ++v)
      store(reinterpret_cast<float*>(wide) + v * kLanes,
            Weights::at(w + v * kLanes * Weights::kLaneBytes, 0));
  }
  static Element pack(float x) {
    return x;
  }

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

// Scales and offsets of one group, of NV vectors of outputs.
template <int NV>
struct GroupVecs {
  Vec scale[NV], offset[NV];

  void load_from(const float* scales, bool has_offsets) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      scale[v] = load(scales + v * kLanes);
      offset[v] = has_offsets ? load(scales + kPanel + v * kLanes) : Vec{};
    }
  }
};

// Codes with scales of groups, and f32 activations.
template <class Codes>
struct GroupFormat : Codes {
  using Element = float;
  using Shared = FmaFormat<WidenedCodes<Codes::kStep>>;
  static constexpr bool kHasGroups = true;
  static Element pack(float x) { return x; }

  static void widen_step(const char* w, char* wide, const GroupVecs<kPanelVecs>& group, const float* table) {
#pragma GCC unroll 16
    for (int j = 0; j < Codes::kStep; ++j) {
#pragma GCC unroll 8
      for (int v = 0; v < kPanelVecs; ++v)
        store(reinterpret_cast<float*>(wide) + j * kPanel + v * kLanes,
              fma(Codes::at(w + v * kLanes * Codes::kLaneBytes, j, table), group.scale[v], group.offset[v]));
    }
  }
  template <int MR, int NV>
  static void step(Vec (&acc)[MR][NV], const Element* a, const char* w, const GroupVecs<NV>& group,
                   const float* table) {
#pragma GCC unroll 16
    for (int j = 0; j < Codes::kStep; ++j) {
      Vec weight[NV];
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v)
        weight[v] =
            fma(Codes::at(w + v * kLanes * Codes::kLaneBytes, j, table), group.scale[v], group.offset[v]);
#pragma GCC unroll 16
      for (int m = 0; m < MR; ++m) {
        const Vec x = broadcast(a[Codes::kStep * m + j]);
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
  static constexpr bool kHasGroups = false;
  using Shared = Bf16DotFormat;

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
    add_dots(acc, a, weight);
  }
  template <int MR, int NV>
  static void add_dots(Vec (&acc)[MR][NV], const Element* a, const __m512bh (&weight)[NV]) {
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

// bf16 holds every code exactly. Its two bytes are looked up by the code's magnitude, one table each.
struct CodesAsBf16 {
  alignas(64) uint8_t low[128] = {};
  alignas(64) uint8_t high[128] = {};
  // Takes the codes of two neighbouring k, 32 outputs each, to where the interleaving of low and high bytes,
  // which goes by quarters of a vector, makes pairs of them: outputs in order, the first 16 in the first
  // vector.
  alignas(64) uint8_t order[64] = {};

  constexpr CodesAsBf16() {
    for (int magnitude = 0; magnitude < 128; ++magnitude) {
      const uint32_t bits = __builtin_bit_cast(uint32_t, static_cast<float>(magnitude)) >> 16;
      low[magnitude] = static_cast<uint8_t>(bits & 0xff);
      high[magnitude] = static_cast<uint8_t>(bits >> 8);
    }
    for (int i = 0; i < 64; ++i) {
      const int quarter = i / 16, half = i % 16 / 8, output = i % 8 / 2, k = i % 2;
      order[i] = static_cast<uint8_t>(k * kPanel + half * 16 + quarter * 4 + output);
    }
  }
};
inline constexpr CodesAsBf16 kCodesAsBf16;

// int8 by bf16, after widening as bf16 by bf16.
struct Int8DotFormat {
  using Element = Bf16DotFormat::Element;
  static constexpr bool kHasGroups = false;
  using Shared = Bf16DotFormat;
  static constexpr int kStep = 2, kLaneBytes = 2;
  static constexpr int kStepBytes = 2 * kPanel;
  static_assert(kStepBytes == sizeof(__m512i));
  static Element pack(float x) { return Bf16DotFormat::pack(x); }

  static void widen(const char* w, __m512bh (&pairs)[2]) {
    const auto table = [](const uint8_t* bytes) { return _mm512_load_si512(bytes); };
    const __m512i codes = _mm512_permutexvar_epi8(table(kCodesAsBf16.order), _mm512_loadu_si512(w));
    const __m512i magnitude = _mm512_abs_epi8(codes);
    const __m512i low =
        _mm512_permutex2var_epi8(table(kCodesAsBf16.low), magnitude, table(kCodesAsBf16.low + 64));
    __m512i high =
        _mm512_permutex2var_epi8(table(kCodesAsBf16.high), magnitude, table(kCodesAsBf16.high + 64));
    high = _mm512_ternarylogic_epi64(high, codes, _mm512_set1_epi8(-128), 0xf8);  // with the sign of the code
    pairs[0] = (__m512bh)_mm512_unpacklo_epi8(low, high);
    pairs[1] = (__m512bh)_mm512_unpackhi_epi8(low, high);
  }
  static void widen_step(const char* w, char* wide) {
    __m512bh pairs[2];
    widen(w, pairs);
    std::memcpy(wide, pairs, sizeof pairs);
  }
  template <int MR, int NV>
  static void step(Vec (&acc)[MR][NV], const Element* a, const char* w) {
    __m512bh weight[NV];
    widen(w, weight);
    Bf16DotFormat::add_dots(acc, a, weight);
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

// What makes a result of a sum that is complete: sum * scale + bias. scales null: nothing is left to do.
struct Finish {
  const float* scales;  // [kPanel]
  const float* bias;    // [kPanel]
};

// Scales of groups of so many steps, `stride` floats from one group to the next.
struct Groups {
  const float* scales;
  int64_t steps, stride;
  bool has_offsets;
  const float* table;

  const float* at(int64_t step) const { return scales + step / steps * stride; }
};

// Steps of k over one tile, all vectors of the panel. Row m's accumulators begin as from[m * from_stride ..]
// and go to out[m * out_stride ..].
template <class Format, int MR>
void multiply_tile(const typename Format::Element* a, const char* weights, int64_t steps, Prefetch prefetch,
                   const float* from, int64_t from_stride, float* out, int64_t out_stride, Finish finish,
                   const Groups& groups) {
  constexpr int NV = tile_vecs(MR);
  constexpr int kLocality = is_short(MR) ? 3 : 2;  // the first or the second level of cache
  constexpr int kAheadBytes = Format::kHasGroups || Format::kStepBytes < 128 ? Format::kStepBytes : 128;  // what was widened shares it
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
    const auto advance = [&](int64_t count, const auto&... of_group) {
      for (int64_t s = 0; s < count; ++s) {
#pragma GCC unroll 8
        for (int line = 0; line < kAheadBytes; line += 64) __builtin_prefetch(ahead + line, 0, kLocality);
        Format::step(acc, step_a, w, of_group...);
        step_a += MR * Format::kStep;
        w += Format::kStepBytes;
        ahead += prefetch.bytes;
      }
    };
    if constexpr (Format::kHasGroups) {
      GroupVecs<NV> group;
      for (int64_t s = 0; s < steps; s += groups.steps) {
        group.load_from(groups.at(s) + part * kLanes, groups.has_offsets);
        advance(steps - s < groups.steps ? steps - s : groups.steps, group, groups.table);
      }
    } else {
      advance(steps);
    }
    if (finish.scales != nullptr) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) {
        const Vec scale = load(finish.scales + (part + v) * kLanes),
                  bias = load(finish.bias + (part + v) * kLanes);
#pragma GCC unroll 16
        for (int m = 0; m < MR; ++m) acc[m][v] = fma(acc[m][v], scale, bias);
      }
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
                        int64_t, float*, int64_t, Finish, const Groups&);
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
  // Sums begin with the bias, or end with it when they are of codes.
  const bool is_scaled = args.scales != nullptr;
  alignas(64) float scales[kPanel] = {}, last[kPanel] = {};
  if (args.bias != nullptr) copy_columns(args.bias, 0, is_scaled ? last : start, 0, 1, args.valid);
  if (is_scaled) copy_columns(args.scales, 0, scales, 0, 1, args.valid);
  const Groups groups{.scales = args.group_scales,
                      .steps = args.group / Format::kStep,
                      .stride = args.has_offsets ? 2 * kPanel : kPanel,
                      .has_offsets = args.has_offsets,
                      .table = args.table};
  const auto multiply = [&]<class Of>(const Tiles<Of>& tiles, const char* slice, int64_t first,
                                      int64_t count) {
    const auto* tile = static_cast<const Element*>(args.activations);
    float* out = args.out;
    const Finish finish{is_scaled && first + count == steps ? scales : nullptr, last};
    for (int t = 0; t < args.num_tiles; ++t) {
      const int rows = args.tile_rows + (t < args.tall_tiles ? 1 : 0);
      float* const to = whole ? out : edge;
      const int64_t stride = whole ? args.out_stride : kPanel;
      if (!whole && first > 0) copy_columns(out, args.out_stride, edge, kPanel, rows, args.valid);
      tiles.of[rows - 1](tile + first * rows * Format::kStep, slice, count, prefetch, first > 0 ? to : start,
                         first > 0 ? stride : 0, to, stride, finish, groups);
      if (!whole) copy_columns(edge, kPanel, out, args.out_stride, rows, args.valid);
      prefetch.at += count * prefetch.bytes;
      tile += steps * rows * Format::kStep;
      out += rows * args.out_stride;
    }
  };
  if (alone) {
    multiply(kTiles<Format>, weights, 0, steps);
  } else if constexpr (!std::is_same_v<typename Format::Shared, Format>) {
    using Shared = typename Format::Shared;
    static_assert(Shared::kStep == Format::kStep, "they share the packed activations");
    constexpr int64_t kSteps = kWideBytes / Shared::kStepBytes;
    alignas(64) char wide[kWideBytes];
    for (int64_t first = 0; first < steps; first += kSteps) {
      const int64_t count = steps - first < kSteps ? steps - first : kSteps;
      if constexpr (Format::kHasGroups) {
        GroupVecs<kPanelVecs> group;
        for (int64_t s = 0; s < count; ++s) {
          if (s == 0 || (first + s) % groups.steps == 0) group.load_from(groups.at(first + s), args.has_offsets);
          Format::widen_step(weights + (first + s) * Format::kStepBytes, wide + s * Shared::kStepBytes, group,
                             args.table);
        }
      } else {
        for (int64_t s = 0; s < count; ++s)
          Format::widen_step(weights + (first + s) * Format::kStepBytes, wide + s * Shared::kStepBytes);
      }
      multiply(kTiles<Shared>, wide, first, count);
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
      for (int64_t i = whole * kStep; i < (whole + 1) * kStep; ++i)
        *to++ = i < k ? Format::pack(x[m * x_stride + i]) : typename Format::Element{0};
    }
  }
}

template <class Format>
constexpr LinearKernel linear_kernel() {
  return {.max_rows = kTileRows,
          .k_multiple = Format::kStep,
          .element_bytes = sizeof(typename Format::Element),
          .multiplies_bf16 = std::is_same_v<typename Format::Element, uint16_t>,
          .direct_single = std::is_same_v<typename Format::Element, float>,
          .pack = pack_tile<Format>,
          .panel = multiply_panel<Format>};
}

}  // namespace
}  // namespace serval::cpu
