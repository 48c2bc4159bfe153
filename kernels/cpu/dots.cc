// The matrix product of rows that are rounded to bytes (dot_table.h): rounds them, and cuts the work into groups of
// panels and blocks of rows.
#include <algorithm>

#include "kernels/base/check.h"
#include "kernels/cpu/cpu_backend.h"

namespace serval::cpu {

size_t packed_dot_row_bytes(int64_t k) {
  return static_cast<size_t>(padded_k(k, kDotStep)) + sizeof(float);
}

void CpuBackend::dot_rows(const LinearRows& in, const LinearWeight& w) {
  const int64_t m = in.count, k = padded_k(w.k, kDotStep), panels = (w.n + kPanel - 1) / kPanel;
  const Buffer& packed = step().packed_rows;
  SERVAL_CHECK(m * packed_dot_row_bytes(w.k) <= packed.bytes, m, w.k, packed.bytes);
  auto* const codes = packed.as<uint8_t>();
  auto* const row_scales = reinterpret_cast<float*>(codes + m * k);
  for_rows(m, k, [&](int64_t r) { dots_.round_row(in.x + r * in.x_stride, w.k, k, codes + r * k, row_scales + r); });

  // A block of rows stays in a core's own cache beside a panel.
  constexpr int64_t kBlockBytes = 768 << 10, kBlockRows = 32;
  const int64_t most = std::max(kBlockRows, kBlockBytes / k / kBlockRows * kBlockRows);
  const int64_t num_blocks = (m + most - 1) / most, rows_of_block = padded_k((m + num_blocks - 1) / num_blocks, kBlockRows);
  // As linear_rows(): neighbouring panels to one worker, a few claims each. The estimate of a panel's time in nanoseconds:
  // some 20 bytes of weights, or 500 multiply-adds.
  const double panel_ns = static_cast<double>(k * kPanel) * std::max(0.05, static_cast<double>(std::min(m, rows_of_block)) / 500.0);
  constexpr double kMinTaskNs = 4000;
  constexpr int64_t kClaimsPerWorker = 8;
  const int64_t group = std::max(static_cast<int64_t>(kMinTaskNs / panel_ns) + 1, panels / (kClaimsPerWorker * pool_.num_threads()));
  const int64_t num_groups = (panels + group - 1) / group;
  pool_.for_each(num_blocks * num_groups, [&](int, int64_t task) {
    const int64_t first_row = task / num_groups * rows_of_block, first_panel = task % num_groups * group;
    const int64_t rows = std::min(m - first_row, rows_of_block);
    if (rows <= 0) return;
    for (int64_t p = first_panel; p < std::min(panels, first_panel + group); ++p) {
      dots_.panel({.weights = w.packed.as<int8_t>() + p * k * kPanel,
                   .rows = codes + first_row * k,
                   .row_scales = row_scales + first_row,
                   .num_rows = static_cast<int>(rows),
                   .k = k,
                   .scales = w.scales.as<DotScales>() + p,
                   .bias = w.bias.data() == nullptr ? nullptr : w.bias.as<float>() + p * kPanel,
                   .out = in.out + first_row * in.out_stride + p * kPanel,
                   .out_stride = in.out_stride,
                   .valid = static_cast<int>(std::min<int64_t>(kPanel, w.n - p * kPanel))});
    }
  });
}

}  // namespace serval::cpu
