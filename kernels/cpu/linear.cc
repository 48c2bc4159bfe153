// The matrix product and everything else that knows how weights are packed: packing, its size, and the
// look-up of embedding rows. The work is cut into groups of panels (outputs) and blocks of rows, never along
// k.
#include <cstring>

#include "kernels/base/check.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/float_bits.h"

namespace serval::cpu {
namespace {

int format_of(DType dtype) {
  SERVAL_CHECK(dtype != DType::kI32, dtype_name(dtype));
  return static_cast<int>(dtype);
}

// bf16 lies in pairs of k on every instruction set.
constexpr int weight_multiple(DType dtype) {
  return dtype == DType::kBF16 ? 2 : 1;
}

size_t panel_bytes(int64_t k, DType dtype) {
  return static_cast<size_t>(padded_k(k, weight_multiple(dtype))) * kPanel * dtype_bytes(dtype);
}

int64_t num_panels(int64_t n) {
  return (n + kPanel - 1) / kPanel;
}

// Index of weight (lane, k) in its panel, in elements.
int64_t panel_index(int lane, int64_t k, int multiple) {
  return ((k / multiple) * kPanel + lane) * multiple + k % multiple;
}

// Copies columns [begin, end) of row `from` (any alignment: checkpoints are mapped files) into lane `lane` of
// a panel.
template <class Element>
void pack_row(const std::byte* from, int64_t begin, int64_t end, int multiple, int lane, std::byte* panel) {
  for (int64_t i = begin; i < end; ++i) {
    Element value;
    std::memcpy(&value, from + i * sizeof(Element), sizeof value);
    reinterpret_cast<Element*>(panel)[panel_index(lane, i, multiple)] = value;
  }
}

// The row of a fused matrix: which part it is in and where.
const std::byte* fused_row(std::span<const Tensor> parts, int64_t row, size_t row_bytes) {
  for (const Tensor& part : parts) {
    if (row < part.dim(0)) return static_cast<const std::byte*>(part.data) + row * row_bytes;
    row -= part.dim(0);
  }
  return nullptr;
}

float element_as_float(const std::byte* p, DType dtype) {
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, p, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return dtype == DType::kF16 ? half_to_float(bits) : bf16_to_float(bits);
}

}  // namespace

size_t CpuBackend::packed_bytes(int64_t n, int64_t k, DType dtype, bool bias) const {
  return num_panels(n) * panel_bytes(k, dtype) + (bias ? n * sizeof(float) : 0);
}

LinearWeight CpuBackend::pack_linear(std::span<const Tensor> parts, std::span<const Tensor> biases) {
  SERVAL_CHECK(!parts.empty() && (biases.empty() || biases.size() == parts.size()), parts.size(),
               biases.size());
  LinearWeight w;
  w.k = parts[0].dim(1);
  w.dtype = parts[0].dtype;
  format_of(w.dtype);
  for (const Tensor& part : parts) {
    SERVAL_CHECK(part.rank == 2 && part.dim(1) == w.k && part.dtype == w.dtype, part.rank, part.dim(1), w.k);
    w.n += part.dim(0);
  }
  w.packed = take(packed_bytes(w.n, w.k, w.dtype, false));
  const size_t row_bytes = static_cast<size_t>(w.k) * dtype_bytes(w.dtype);
  const size_t stride = panel_bytes(w.k, w.dtype);
  const int multiple = weight_multiple(w.dtype);
  pool_.for_each(num_panels(w.n), [&](int, int64_t p) {
    std::byte* const panel = w.packed.as<std::byte>() + p * stride;
    const int rows = static_cast<int>(std::min<int64_t>(kPanel, w.n - p * kPanel));
    if (rows < kPanel || w.k % multiple != 0) std::memset(panel, 0, stride);
    const std::byte* from[kPanel];
    for (int lane = 0; lane < rows; ++lane) from[lane] = fused_row(parts, p * kPanel + lane, row_bytes);
    // All rows advance together, so that the lines they write are complete before they leave the cache.
    constexpr int64_t kColumns = 64;
    for (int64_t begin = 0; begin < w.k; begin += kColumns) {
      const int64_t end = std::min(w.k, begin + kColumns);
      for (int lane = 0; lane < rows; ++lane) {
        if (dtype_bytes(w.dtype) == 4) {
          pack_row<uint32_t>(from[lane], begin, end, 1, lane, panel);
        } else if (multiple == 2) {
          pack_row<uint16_t>(from[lane], begin, end, 2, lane, panel);
        } else {
          pack_row<uint16_t>(from[lane], begin, end, 1, lane, panel);
        }
      }
    }
  });
  if (!biases.empty()) {
    w.bias = allocate(static_cast<size_t>(w.n) * sizeof(float));
    float* to = w.bias.as<float>();
    for (size_t i = 0; i < biases.size(); ++i) {
      const Tensor& bias = biases[i];
      SERVAL_CHECK(bias.num_elements() == parts[i].dim(0), bias.num_elements(), parts[i].dim(0));
      for (int64_t j = 0; j < bias.num_elements(); ++j)
        *to++ = element_as_float(static_cast<const std::byte*>(bias.data) + j * dtype_bytes(bias.dtype),
                                 bias.dtype);
    }
  }
  return w;
}

void CpuBackend::embed(const LinearWeight& table, std::span<const int32_t> ids, const Tensor& out) {
  const int multiple = weight_multiple(table.dtype);
  const size_t stride = panel_bytes(table.k, table.dtype);
  SERVAL_CHECK(out.dim(0) == static_cast<int64_t>(ids.size()) && out.dim(1) == table.k, out.dim(0),
               ids.size(), out.dim(1), table.k);
  for_rows(static_cast<int64_t>(ids.size()), table.k, [&](int64_t r) {
    const int32_t id = ids[r] >= 0 ? ids[r] : sample_scratch_.last_drawn.at(-1 - ids[r]);
    SERVAL_CHECK(id >= 0 && id < table.n, ids[r], id, table.n);
    const std::byte* const panel = table.packed.as<std::byte>() + id / kPanel * stride;
    float* const to = out.as<float>() + r * table.k;
    for (int64_t i = 0; i < table.k; ++i)
      to[i] = element_as_float(panel + panel_index(id % kPanel, i, multiple) * dtype_bytes(table.dtype),
                               table.dtype);
  });
}

void CpuBackend::linear(const Tensor& x, const LinearWeight& w, const Tensor& out) {
  const int64_t m = x.dim(0), k = w.k, n = w.n;
  SERVAL_CHECK(x.dtype == DType::kF32 && out.dtype == DType::kF32 && x.dim(1) == k && out.dim(0) == m &&
                   out.dim(1) == n,
               x.dim(1), k, out.dim(0), m, out.dim(1), n);
  if (m == 0) return;
  const LinearKernel& kernel = kernels_.linear[format_of(w.dtype)];

  // Rows in tiles of nearly equal height, the taller ones first.
  const int64_t num_tiles = (m + kernel.max_rows - 1) / kernel.max_rows;
  const int64_t tile_rows = m / num_tiles, tall_tiles = m % num_tiles;
  const auto first_row = [&](int64_t tile) { return tile * tile_rows + std::min(tile, tall_tiles); };
  const size_t row_bytes = static_cast<size_t>(padded_k(k, kernel.k_multiple)) * kernel.element_bytes;
  const std::byte* rows = static_cast<const std::byte*>(x.data);
  if (m > 1 || !kernel.direct_single) {
    SERVAL_CHECK(m * row_bytes <= packed_rows_.bytes, m, k, packed_rows_.bytes);
    rows = packed_rows_.as<std::byte>();
    const auto pack = [&](int64_t tile) {
      const int64_t begin = first_row(tile);
      kernel.pack(x.as<float>() + begin * k, k, static_cast<int>(first_row(tile + 1) - begin), k,
                  packed_rows_.as<std::byte>() + begin * row_bytes);
    };
    for_rows(num_tiles, kernel.max_rows * k, pack);
  }

  // A block of rows passes over a panel while its packed activations stay in the shared cache.
  constexpr int64_t kTilesPerBlock = 24;
  const int64_t num_blocks = (num_tiles + kTilesPerBlock - 1) / kTilesPerBlock;
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
  const size_t stride = panel_bytes(k, w.dtype);
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
                    .bias = w.bias.data() == nullptr ? nullptr : w.bias.as<float>() + p * kPanel,
                    .out = out.as<float>() + row * n + p * kPanel,
                    .out_stride = n,
                    .valid = static_cast<int>(std::min<int64_t>(kPanel, n - p * kPanel))});
    }
  });
}

}  // namespace serval::cpu
