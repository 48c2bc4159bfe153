// The product of bf16 weights by tiles of 16 rows by 64 bytes (Intel AMX, TDPBF16PS), compiled with its flags. Nothing here
// may be visible elsewhere but its entry of the kernel table.
//
// Activations are rounded to bf16, each row by itself; a sum takes its terms pair by pair in ascending k, in f32, and the
// bias last. How many rows a tile has decides who shares a load, never an order.
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/simd.h"

namespace serval::cpu {
namespace {

constexpr int kTileHeight = 16, kTileBytes = 64;
constexpr int kStep = kTileBytes / 2;              // of k
constexpr int kStepBytes = kStep / 2 * 4 * kPanel;  // of a panel

// Of two of rows (4, 5) by two of weights (6, 7) into four of sums (0..3).
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  TileConfig(int upper, int lower) {
    const int heights[] = {upper, upper, lower, lower, upper, lower, kTileHeight, kTileHeight};
    for (int i = 0; i < 8; ++i) {
      rows[i] = static_cast<uint8_t>(heights[i] == 0 ? 1 : heights[i]);
      row_bytes[i] = kTileBytes;
    }
  }
};

int64_t padded(int64_t k) {
  return (k + kStep - 1) / kStep * kStep;
}

// To nearest, ties to even; a NaN stays one.
uint16_t to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : rounded);
}

// [rows][padded k].
void pack_rows(const float* x, int64_t x_stride, int rows, int64_t k, void* tile) {
  auto* to = static_cast<uint16_t*>(tile);
  for (int m = 0; m < rows; ++m, to += padded(k)) {
    for (int64_t i = 0; i < k; ++i) to[i] = to_bf16(x[m * x_stride + i]);
    for (int64_t i = k; i < padded(k); ++i) to[i] = 0;
  }
}

// One step: what lies at w times columns of the rows.
template <bool kHasLower>
void multiply_step(const char* rows, const char* lower_rows, int64_t row_bytes, const char* w) {
  _tile_loadd(6, w, 4 * kPanel);
  _tile_loadd(4, rows, row_bytes);
  _tile_dpbf16ps(0, 4, 6);
  _tile_loadd(7, w + kTileBytes, 4 * kPanel);
  _tile_dpbf16ps(1, 4, 7);
  if constexpr (kHasLower) {
    _tile_loadd(5, lower_rows, row_bytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}

struct Panel {
  const char* weights;
  int64_t whole_steps;
  const char* last;  // the weights of a step that k does not fill, zeros behind them; null: there is none
  const char* ahead;  // what is fetched along the way, kStepBytes a step; null: nothing
};

template <bool kHasLower>
void multiply(const Panel& panel, const char* rows, int64_t row_bytes) {
  const char* const lower_rows = rows + kTileHeight * row_bytes;
  const char* w = panel.weights;
  for (int64_t s = 0; s < panel.whole_steps; ++s, w += kStepBytes) {
    if (panel.ahead != nullptr) {
#pragma GCC unroll 32
      for (int line = 0; line < kStepBytes; line += 64) __builtin_prefetch(panel.ahead + s * kStepBytes + line);
    }
    multiply_step<kHasLower>(rows + s * kTileBytes, lower_rows + s * kTileBytes, row_bytes, w);
  }
  if (panel.last != nullptr) {
    const int64_t at = panel.whole_steps * kTileBytes;
    multiply_step<kHasLower>(rows + at, lower_rows + at, row_bytes, panel.last);
  }
}

void multiply_panel(const PanelArgs& args) {
  alignas(64) float sums[2 * kTileHeight * kPanel], bias[kPanel] = {};
  alignas(64) char last[kStepBytes] = {};
  if (args.bias != nullptr) std::memcpy(bias, args.bias, args.valid * sizeof(float));
  const auto* const weights = static_cast<const char*>(args.weights);
  Panel panel{weights, args.k / kStep, nullptr, nullptr};
  if (const int64_t left = args.k % kStep; left > 0) {
    std::memcpy(last, weights + panel.whole_steps * kStepBytes, (left + 1) / 2 * 4 * kPanel);
    panel.last = last;
  }
  constexpr int64_t kAhead = 8192;
  if (args.num_tiles == 1) panel.ahead = weights + kAhead;
  constexpr int kSumStride = kPanel * sizeof(float);
  const int64_t row_bytes = padded(args.k) * 2;
  const auto* rows = static_cast<const char*>(args.activations);
  float* out = args.out;
  int configured = 0;
  for (int t = 0; t < args.num_tiles; ++t) {
    const int height = args.tile_rows + (t < args.tall_tiles ? 1 : 0);
    const int upper = height < kTileHeight ? height : kTileHeight, lower = height - upper;
    if (height != configured) {
      const TileConfig config(upper, lower);
      _tile_loadconfig(&config);
      configured = height;
    }
    _tile_zero(0);
    _tile_zero(1);
    if (lower > 0) {
      _tile_zero(2);
      _tile_zero(3);
      multiply<true>(panel, rows, row_bytes);
      _tile_stored(2, sums + kTileHeight * kPanel, kSumStride);
      _tile_stored(3, sums + kTileHeight * kPanel + kPanel / 2, kSumStride);
    } else {
      multiply<false>(panel, rows, row_bytes);
    }
    _tile_stored(0, sums, kSumStride);
    _tile_stored(1, sums + kPanel / 2, kSumStride);
    for (int m = 0; m < height; ++m, out += args.out_stride) {
      float* const row = sums + m * kPanel;
      for (int v = 0; v < kPanel; v += kLanes) store(row + v, load(row + v) + load(bias + v));
      std::memcpy(out, row, args.valid * sizeof(float));
    }
    rows += height * row_bytes;
  }
  _tile_release();
}

}  // namespace

extern const LinearKernel kAmxBf16Product;
const LinearKernel kAmxBf16Product = {.max_rows = 2 * kTileHeight,
                                      .k_multiple = kStep,
                                      .element_bytes = sizeof(uint16_t),
                                      .multiplies_bf16 = true,
                                      .direct_single = false,
                                      .pack = pack_rows,
                                      .panel = multiply_panel};

}  // namespace serval::cpu
