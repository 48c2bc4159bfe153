// The matrix product of rows that are rounded to bytes (dot_table.h): rounds them, and cuts the work into groups of
// panels and blocks of rows.
#include <algorithm>
#include <numeric>

#include "kernels/base/check.h"
#include "kernels/cpu/cpu_backend.h"

namespace serval::cpu {

namespace {

int64_t padded_dots(WeightFormat format, int64_t k) {
  return padded_k(k, format_row(format).has_groups() ? kNibbleStep : kDotStep);
}

}  // namespace

size_t packed_dot_row_bytes(int64_t k) {
  return static_cast<size_t>(padded_k(k, kDotStep)) + sizeof(float) + padded_k(k, kNibbleStep) / kNibbleStep * sizeof(int32_t);
}

void CpuBackend::dot_rows(const LinearRows& in, const LinearWeight& w) {
  const MatrixFormat format = w.matrix_format();
  const bool has_groups = format_row(w.format).has_groups();
  const int64_t m = in.count, k = padded_dots(w.format, w.k), panels = (w.n + kPanel - 1) / kPanel;
  // What integers are added up over: a group, or where that is longer a part of it.
  const int64_t group = format.group > 0 ? format.group : padded_k(k, kMostPiece);
  const int64_t piece = group <= kMostPiece ? group : std::gcd(group, int64_t{kMostPiece});
  const int64_t pieces = has_groups ? (k + piece - 1) / piece : 0;
  const Buffer& packed = step().packed_rows;
  SERVAL_CHECK(m * packed_dot_row_bytes(w.k) <= packed.bytes, m, w.k, packed.bytes);
  auto* const codes = packed.as<uint8_t>();
  auto* const row_scales = reinterpret_cast<float*>(codes + m * k);
  auto* const row_sums = reinterpret_cast<int32_t*>(row_scales + m);
  for_rows(m, k, [&](int64_t r) {
    dots_.round_row(in.x + r * in.x_stride, w.k, k, has_groups ? 0 : 128, codes + r * k, row_scales + r);
    if (has_groups) dots_.sum_pieces(reinterpret_cast<const int8_t*>(codes + r * k), k, piece, row_sums + r * pieces);
  });

  // A block of rows stays in a core's own cache beside a panel.
  constexpr int64_t kBlockBytes = 768 << 10, kBlockRows = 32;
  const int64_t most = std::max(kBlockRows, kBlockBytes / k / kBlockRows * kBlockRows);
  const int64_t num_blocks = (m + most - 1) / most, rows_of_block = padded_k((m + num_blocks - 1) / num_blocks, kBlockRows);
  // As linear_rows(): neighbouring panels to one worker, a few claims each. The estimate of a panel's time in nanoseconds:
  // some 20 bytes of weights, or 500 multiply-adds.
  const double panel_ns = static_cast<double>(k * kPanel) *
                          std::max(format_row(w.format).bits / 160.0, static_cast<double>(std::min(m, rows_of_block)) / 500.0);
  constexpr double kMinTaskNs = 4000;
  constexpr int64_t kClaimsPerWorker = 8;
  const int64_t together = std::max(static_cast<int64_t>(kMinTaskNs / panel_ns) + 1, panels / (kClaimsPerWorker * pool_.num_threads()));
  const int64_t num_tasks = (panels + together - 1) / together;
  const int64_t panel_bytes = k * kPanel * format_row(w.format).bits / 8;
  const int64_t scale_stride = num_groups(format, w.k) * kPanel * (format.has_offsets ? 2 : 1);
  pool_.for_each(num_blocks * num_tasks, [&](int, int64_t task) {
    const int64_t first_row = task / num_tasks * rows_of_block, first_panel = task % num_tasks * together;
    const int64_t rows = std::min(m - first_row, rows_of_block);
    if (rows <= 0) return;
    for (int64_t p = first_panel; p < std::min(panels, first_panel + together); ++p) {
      const DotArgs args{.weights = w.packed.as<std::byte>() + p * panel_bytes,
                         .rows = codes + first_row * k,
                         .row_scales = row_scales + first_row,
                         .num_rows = static_cast<int>(rows),
                         .k = k,
                         .scales = has_groups ? nullptr : w.scales.as<DotScales>() + p,
                         .group_scales = has_groups ? w.scales.as<float>() + p * scale_stride : nullptr,
                         .piece = piece,
                         .pieces_of_group = group / piece,
                         .has_offsets = format.has_offsets,
                         .row_sums = row_sums + first_row * pieces,
                         .bias = w.bias.data() == nullptr ? nullptr : w.bias.as<float>() + p * kPanel,
                         .out = in.out + first_row * in.out_stride + p * kPanel,
                         .out_stride = in.out_stride,
                         .valid = static_cast<int>(std::min<int64_t>(kPanel, w.n - p * kPanel))};
      (has_groups ? dots_.nibble_panel : dots_.panel)(args);
    }
  });
}

}  // namespace serval::cpu
