// The matrix product and everything else that knows how weights are packed: packing, its size, and the
// look-up of embedding rows. The work is cut into groups of panels (outputs) and blocks of rows, never along
// k.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/float_bits.h"

namespace serval::cpu {
namespace {

static_assert(kNumLinearKernels == static_cast<int>(WeightFormat::kInt8Dynamic));

// How the codes of a format lie in a panel (kernel_table.h), and one of them as a number.
template <class Stored, float (*kNumber)(Stored), int kNeighbours, int kRounding>
struct WholeCodes {
  using Code = Stored;
  static constexpr int kPair = kNeighbours;   // neighbours along k that lie side by side
  static constexpr int kMultiple = kRounding;  // k is rounded up to
  static int64_t index(int lane, int64_t k) { return ((k / kPair) * kPanel + lane) * kPair + k % kPair; }
  static size_t panel_bytes(int64_t k) { return padded_k(k, kMultiple) * kPanel * sizeof(Code); }
  static void put(std::byte* panel, int lane, int64_t k, Code code) {
    reinterpret_cast<Code*>(panel)[index(lane, k)] = code;
  }
  static float number(const std::byte* panel, int lane, int64_t k, const float*) {
    return kNumber(reinterpret_cast<const Code*>(panel)[index(lane, k)]);
  }
};
float from_float(float code) {
  return code;
}
float from_byte(int8_t code) {
  return code;
}
using F32Codes = WholeCodes<float, from_float, 1, 1>;
using F16Codes = WholeCodes<uint16_t, half_to_float, 1, 1>;
using Bf16Codes = WholeCodes<uint16_t, bf16_to_float, 2, 2>;
using Int8Codes = WholeCodes<int8_t, from_byte, 1, 2>;
using Fp8Codes = WholeCodes<uint8_t, fp8_to_float, 1, 2>;
using DotCodes = WholeCodes<int8_t, from_byte, 4, kDotStep>;

// Of a panel that was zero.
template <bool kHasTable>
struct HalfByteCodes {
  using Code = uint8_t;
  static constexpr int kTogether = 8;
  static size_t panel_bytes(int64_t k) { return padded_k(k, kTogether) * kPanel / 2; }
  static uint32_t* word(const std::byte* panel, int lane, int64_t k) {
    return reinterpret_cast<uint32_t*>(const_cast<std::byte*>(panel)) + k / kTogether * kPanel + lane;
  }
  static void put(std::byte* panel, int lane, int64_t k, Code code) {
    *word(panel, lane, k) |= (code & 15u) << k % kTogether * 4;
  }
  static float number(const std::byte* panel, int lane, int64_t k, const float* table) {
    const uint32_t code = *word(panel, lane, k) >> k % kTogether * 4 & 15;
    return kHasTable ? table[code] : static_cast<float>(static_cast<int>(code ^ 8) - 8);
  }
};

// Of a panel that was zero: as hot_dots.cc multiplies them.
struct DotHalfByteCodes {
  using Code = uint8_t;
  static size_t panel_bytes(int64_t k) { return padded_k(k, kNibbleStep) * kPanel / 2; }
  static uint8_t* byte(const std::byte* panel, int lane, int64_t k) {
    return reinterpret_cast<uint8_t*>(const_cast<std::byte*>(panel)) + (k / kNibbleStep * kPanel + lane) * 4 + k % 4;
  }
  static int shift(int64_t k) { return k % kNibbleStep < 4 ? 0 : 4; }
  static void put(std::byte* panel, int lane, int64_t k, Code code) {
    *byte(panel, lane, k) |= static_cast<uint8_t>(((code ^ 8u) & 15u) << shift(k));
  }
  static float number(const std::byte* panel, int lane, int64_t k, const float*) {
    return static_cast<float>((*byte(panel, lane, k) >> shift(k) & 15) - 8);
  }
};

// Of a panel that was zero.
struct Fp6Codes {
  using Code = uint8_t;
  static constexpr int kTogether = 16, kWords = 3, kInWord = 5;
  static size_t panel_bytes(int64_t k) { return padded_k(k, kTogether) / kTogether * kWords * kPanel * sizeof(uint32_t); }
  static uint32_t* words(const std::byte* panel, int lane, int64_t k) {  // kPanel apart
    return reinterpret_cast<uint32_t*>(const_cast<std::byte*>(panel)) + k / kTogether * kWords * kPanel + lane;
  }
  static void put(std::byte* panel, int lane, int64_t k, Code code) {
    uint32_t* const to = words(panel, lane, k);
    const auto at = static_cast<int>(k % kTogether);
    const uint32_t turned = (code & 31u) << 1 | (code >> 5 & 1u);
    if (at < kWords * kInWord) {
      to[at / kInWord * kPanel] |= turned << at % kInWord * 6;
    } else {
      for (int i = 0; i < kWords; ++i) to[i * kPanel] |= (turned >> 2 * i & 3) << 30;
    }
  }
  static float number(const std::byte* panel, int lane, int64_t k, const float*) {
    const uint32_t* const from = words(panel, lane, k);
    const auto at = static_cast<int>(k % kTogether);
    uint32_t turned = 0;
    if (at < kWords * kInWord) {
      turned = from[at / kInWord * kPanel] >> at % kInWord * 6 & 63;
    } else {
      for (int i = 0; i < kWords; ++i) turned |= from[i * kPanel] >> 30 << 2 * i;
    }
    return fp6_to_float(static_cast<uint8_t>(turned >> 1 | (turned & 1) << 5));
  }
};

// Calls run with the codes of the format.
template <class Run>
auto with_codes(WeightFormat format, const Run& run) {
  switch (format) {
    case WeightFormat::kF32:
      return run(F32Codes());
    case WeightFormat::kF16:
      return run(F16Codes());
    case WeightFormat::kBF16:
      return run(Bf16Codes());
    case WeightFormat::kInt8:
    case WeightFormat::kInt8Groups:
      return run(Int8Codes());
    case WeightFormat::kInt4:
      return run(HalfByteCodes<false>());
    case WeightFormat::kTable4:
      return run(HalfByteCodes<true>());
    case WeightFormat::kFp8:
      return run(Fp8Codes());
    case WeightFormat::kFp6:
      return run(Fp6Codes());
    case WeightFormat::kInt8Dynamic:
      return run(DotCodes());
    case WeightFormat::kInt4Dynamic:
      return run(DotHalfByteCodes());
  }
  SERVAL_CHECK(false, static_cast<int>(format));
}

size_t panel_bytes(int64_t k, WeightFormat format) {
  return with_codes(format, [&](auto codes) { return codes.panel_bytes(k); });
}

int64_t num_panels(int64_t n) {
  return (n + kPanel - 1) / kPanel;
}

// Copies columns [begin, end) of row `from` (any alignment: checkpoints are mapped files) into lane `lane` of
// a panel.
template <class Codes>
void pack_row(const std::byte* from, int64_t begin, int64_t end, int lane, std::byte* panel) {
  using Code = typename Codes::Code;
  for (int64_t i = begin; i < end; ++i) {
    Code code;
    std::memcpy(&code, from + i * sizeof(Code), sizeof code);
    Codes::put(panel, lane, i, code);
  }
}

// The row of a fused matrix: which part it is of, and its number there.
std::pair<const LinearSource*, int64_t> fused_row(std::span<const LinearSource> parts, int64_t row) {
  for (const LinearSource& part : parts) {
    if (row < part.n) return {&part, row};
    row -= part.n;
  }
  SERVAL_CHECK(false, row);
}

// Floats of a panel's scales of groups, and of those of all panels with the table behind them.
int64_t group_stride(const MatrixFormat& format) {
  return format.has_offsets ? 2 * kPanel : kPanel;
}
int64_t panel_scales(const MatrixFormat& format, int64_t k) {
  return num_groups(format, k) * group_stride(format);
}
size_t packed_scale_bytes(const MatrixFormat& format, int64_t n, int64_t k) {
  if (!format_row(format.id).has_groups())
    return format_row(format.id).rounds_rows ? num_panels(n) * sizeof(DotScales) : scale_bytes(format, n, k);
  const int64_t table = format.id == WeightFormat::kTable4 ? kTableSize : 0;
  return static_cast<size_t>(num_panels(n) * panel_scales(format, k) + table) * sizeof(float);
}

// Of a weight with groups.
const float* table_of(const LinearWeight& w) {
  return w.scales.as<float>() + num_panels(w.n) * panel_scales(w.matrix_format(), w.k);
}

// Of the sums too, which the panels are packed for. Outputs that there are not have zeros.
void pack_dot_scales(std::span<const LinearSource> parts, LinearWeight& w) {
  const int64_t k = padded_k(w.k, kDotStep);
  SERVAL_CHECK(k <= std::numeric_limits<int32_t>::max() / (255 * 128), w.k);  // else a sum could overflow
  std::memset(w.scales.data(), 0, w.scales.bytes);
  for (int64_t r = 0; r < w.n; ++r) {
    DotScales& of_panel = w.scales.as<DotScales>()[r / kPanel];
    const auto [part, row] = fused_row(parts, r);
    const auto* const codes = static_cast<const int8_t*>(part->data) + row * w.k;
    of_panel.scale[r % kPanel] = part->scales[row];
    of_panel.excess[r % kPanel] = 128 * std::accumulate(codes, codes + w.k, int32_t{0});
  }
}

void pack_group_scales(std::span<const LinearSource> parts, LinearWeight& w) {
  const MatrixFormat format = w.matrix_format();
  const int64_t groups = num_groups(format, w.k), stride = group_stride(format);
  auto* const all = w.scales.as<float>();
  std::memset(all, 0, w.scales.bytes);
  for (int64_t r = 0; r < w.n; ++r) {
    const auto [part, row] = fused_row(parts, r);
    float* const to = all + r / kPanel * panel_scales(format, w.k) + r % kPanel;
    for (int64_t g = 0; g < groups; ++g) {
      to[g * stride] = part->scales[row * groups + g];
      if (format.has_offsets) to[g * stride + kPanel] = part->offsets[row * groups + g];
    }
  }
  if (w.format == WeightFormat::kTable4) std::copy_n(parts[0].table, kTableSize, const_cast<float*>(table_of(w)));
}

// Of a weight whose scales are of whole rows.
float row_scale(const LinearWeight& w, int64_t row) {
  return format_row(w.format).rounds_rows ? w.scales.as<DotScales>()[row / kPanel].scale[row % kPanel]
                                          : w.scales.as<float>()[row];
}

}  // namespace

size_t CpuBackend::packed_bytes(int64_t n, int64_t k, const MatrixFormat& format, bool bias) const {
  return num_panels(n) * panel_bytes(k, format.id) + packed_scale_bytes(format, n, k) + (bias ? n * sizeof(float) : 0);
}

LinearWeight CpuBackend::pack_linear(std::span<const LinearSource> parts, std::span<const Tensor> biases) {
  LinearWeight w = fused_shape(parts, biases);
  w.packed = take(num_panels(w.n) * panel_bytes(w.k, w.format));
  const size_t row_bytes = code_bytes(w.format, 1, w.k);
  const size_t stride = panel_bytes(w.k, w.format);
  // Else it has places that no code is put into, or is put together.
  const bool is_whole = stride == kPanel * row_bytes && format_row(w.format).together == 1;
  pool_.for_each(num_panels(w.n), [&](int, int64_t p) {
    std::byte* const panel = w.packed.as<std::byte>() + p * stride;
    const int rows = static_cast<int>(std::min<int64_t>(kPanel, w.n - p * kPanel));
    if (rows < kPanel || !is_whole) std::memset(panel, 0, stride);
    const std::byte* from[kPanel];
    for (int lane = 0; lane < rows; ++lane) {
      const auto [part, row] = fused_row(parts, p * kPanel + lane);
      from[lane] = static_cast<const std::byte*>(part->data) + row * row_bytes;
    }
    // All rows advance together, so that the lines they write are complete before they leave the cache.
    constexpr int64_t kColumns = 64;
    with_codes(w.format, [&](auto codes) {
      for (int64_t begin = 0; begin < w.k; begin += kColumns)
        for (int lane = 0; lane < rows; ++lane)
          pack_row<decltype(codes)>(from[lane], begin, std::min(w.k, begin + kColumns), lane, panel);
    });
  });
  w.scales = take(packed_scale_bytes(w.matrix_format(), w.n, w.k));
  if (format_row(w.format).has_groups()) {
    pack_group_scales(parts, w);
  } else if (format_row(w.format).rounds_rows) {
    pack_dot_scales(parts, w);
  } else if (w.scales.bytes > 0) {
    float* to = w.scales.as<float>();
    for (const LinearSource& part : parts) to = std::copy_n(part.scales, part.n, to);
  }
  if (!biases.empty()) {
    w.bias = allocate(static_cast<size_t>(w.n) * sizeof(float));
    float* to = w.bias.as<float>();
    for (const Tensor& bias : biases) to = std::copy_n(bias.as<float>(), bias.num_elements(), to);
  }
  return w;
}

void CpuBackend::embed(const LinearWeight& table, std::span<const int32_t> ids, float scale,
                       const Tensor& out) {
  const size_t stride = panel_bytes(table.k, table.format);
  SERVAL_CHECK(out.dim(0) == static_cast<int64_t>(ids.size()) && out.dim(1) == table.k, out.dim(0),
               ids.size(), out.dim(1), table.k);
  for_rows(static_cast<int64_t>(ids.size()), table.k, [&](int64_t r) {
    const int32_t id = token_of(ids[r]);
    SERVAL_CHECK(id >= 0 && id < table.n, ids[r], id, table.n);
    const std::byte* const panel = table.packed.as<std::byte>() + id / kPanel * stride;
    float* const to = out.as<float>() + r * table.k;
    const int lane = id % kPanel;
    with_codes(table.format, [&](auto codes) {
      const bool has_groups = format_row(table.format).has_groups();
      if (!has_groups) {
        const float factor = table.scales.data() == nullptr ? scale : scale * row_scale(table, id);
        for (int64_t i = 0; i < table.k; ++i) to[i] = factor * codes.number(panel, lane, i, nullptr);
        return;
      }
      const MatrixFormat format = table.matrix_format();
      const float* const scales = table.scales.as<float>() + id / kPanel * panel_scales(format, table.k) + lane;
      for (int64_t i = 0; i < table.k; ++i) {
        const float* const of_group = scales + (format.group > 0 ? i / format.group * group_stride(format) : 0);
        const float number = codes.number(panel, lane, i, table_of(table));
        to[i] = scale * (format.has_offsets ? std::fma(number, *of_group, of_group[kPanel]) : number * *of_group);
      }
    });
  });
}

void CpuBackend::linear(const Tensor& x, const LinearWeight& w, const Tensor& out) {
  SERVAL_CHECK(x.dtype == DType::kF32 && out.dtype == DType::kF32 && x.dim(1) == w.k && out.dim(0) == x.dim(0) &&
                   out.dim(1) == w.n,
               x.dim(1), w.k, out.dim(0), x.dim(0), out.dim(1), w.n);
  linear_rows({.x = x.as<float>(), .x_stride = w.k, .out = out.as<float>(), .out_stride = w.n, .count = x.dim(0)}, w);
}

void CpuBackend::head_linear(const HeadLinearArgs& args) {
  const int64_t heads = std::ssize(args.heads);
  for (int64_t h = 0; h < heads; ++h) {
    const LinearWeight& w = args.heads[h];
    SERVAL_CHECK(args.x.dim(1) == heads && args.x.dim(2) == w.k && args.out.dim(1) == heads && args.out.dim(2) == w.n,
                 args.x.dim(1), args.out.dim(1), heads, args.x.dim(2), w.k, args.out.dim(2), w.n);
    linear_rows({.x = args.x.as<float>() + h * args.x_head_stride,
                 .x_stride = args.x_row_stride,
                 .out = args.out.as<float>() + h * args.out_head_stride,
                 .out_stride = args.out_row_stride,
                 .count = args.x.dim(0)},
                w);
  }
}

void CpuBackend::linear_rows(const LinearRows& in, const LinearWeight& w) {
  const int64_t m = in.count, k = w.k, n = w.n;
  if (m == 0) return;
  if (format_row(w.format).rounds_rows) return dot_rows(in, w);
  const LinearKernel& kernel = kernels_.linear[static_cast<int>(w.format)];

  // Rows in tiles of nearly equal height, the taller ones first.
  const int64_t num_tiles = (m + kernel.max_rows - 1) / kernel.max_rows;
  const int64_t tile_rows = m / num_tiles, tall_tiles = m % num_tiles;
  const auto first_row = [&](int64_t tile) { return tile * tile_rows + std::min(tile, tall_tiles); };
  const size_t row_bytes = static_cast<size_t>(padded_k(k, kernel.k_multiple)) * kernel.element_bytes;
  const auto* rows = reinterpret_cast<const std::byte*>(in.x);
  if (m > 1 || !kernel.direct_single || k % kernel.k_multiple != 0) {
    const Buffer& packed = step().packed_rows;
    SERVAL_CHECK(m * row_bytes <= packed.bytes, m, k, packed.bytes);
    rows = packed.as<std::byte>();
    const auto pack = [&](int64_t tile) {
      const int64_t begin = first_row(tile);
      kernel.pack(in.x + begin * in.x_stride, in.x_stride, static_cast<int>(first_row(tile + 1) - begin), k,
                  packed.as<std::byte>() + begin * row_bytes);
    };
    for_rows(num_tiles, kernel.max_rows * k, pack);
  }

  // A block of rows passes over a panel while its packed activations stay in the shared cache.
  const int64_t tiles_per_block = std::min(24, 288 / kernel.max_rows);
  const int64_t num_blocks = (num_tiles + tiles_per_block - 1) / tiles_per_block;
  const int64_t panels = num_panels(n);
  // Neighbouring panels go to one worker (a panel prefetches the next), in a few claims each so that a core
  // that is taken away holds nobody up, and never less than is worth a hand-over. The estimate of a panel's
  // time in nanoseconds: some 20 bytes of weights, or 100 multiply-adds.
  const double panel_ns =
      static_cast<double>(k * kPanel) * std::max(0.2, static_cast<double>(m) / num_blocks / 100.0);
  constexpr double kMinTaskNs = 4000;
  constexpr int64_t kClaimsPerWorker = 8;
  const auto by_time = static_cast<int64_t>(kMinTaskNs / panel_ns) + 1;
  const int64_t by_balance = panels / (kClaimsPerWorker * pool_.num_threads());
  const int64_t group = std::max(by_time, by_balance);
  const int64_t num_groups = (panels + group - 1) / group;
  const size_t stride = panel_bytes(k, w.format);
  const MatrixFormat format = w.matrix_format();
  const bool has_groups = format_row(w.format).has_groups();
  const int64_t scale_stride = has_groups ? panel_scales(format, k) : kPanel;
  pool_.for_each(num_blocks * num_groups, [&](int, int64_t task) {
    const int64_t block = task / num_groups, first_panel = task % num_groups * group;
    const int64_t first_tile = block * num_tiles / num_blocks,
                  end_tile = (block + 1) * num_tiles / num_blocks;
    const int64_t row = first_row(first_tile);
    for (int64_t p = first_panel; p < std::min(panels, first_panel + group); ++p) {
      kernel.panel({.weights = w.packed.as<std::byte>() + p * stride,
                    .panel_bytes = stride,
                    .activations = rows + row * row_bytes,
                    .num_tiles = static_cast<int>(end_tile - first_tile),
                    .tile_rows = static_cast<int>(tile_rows),
                    .tall_tiles = static_cast<int>(
                        std::clamp<int64_t>(tall_tiles - first_tile, 0, end_tile - first_tile)),
                    .k = k,
                    .scales = w.scales.data() == nullptr || has_groups ? nullptr : w.scales.as<float>() + p * kPanel,
                    .group_scales = has_groups ? w.scales.as<float>() + p * scale_stride : nullptr,
                    .group = format.group > 0 ? format.group : padded_k(k, kernel.k_multiple),
                    .has_offsets = format.has_offsets,
                    .table = w.format == WeightFormat::kTable4 ? table_of(w) : nullptr,
                    .bias = w.bias.data() == nullptr ? nullptr : w.bias.as<float>() + p * kPanel,
                    .out = in.out + row * in.out_stride + p * kPanel,
                    .out_stride = in.out_stride,
                    .valid = static_cast<int>(std::min<int64_t>(kPanel, n - p * kPanel))});
    }
  });
}

}  // namespace serval::cpu
