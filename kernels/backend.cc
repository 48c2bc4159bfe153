// What backends share: the default bodies of fused ops, out of the basic ones, and how parts make a matrix.
#include "kernels/backend.h"

#include <cstring>

#include "kernels/base/check.h"

namespace serval {

LinearWeight fused_shape(std::span<const LinearSource> parts, std::span<const Tensor> biases) {
  SERVAL_CHECK(!parts.empty() && (biases.empty() || biases.size() == parts.size()), parts.size(),
               biases.size());
  LinearWeight w;
  w.k = parts[0].k;
  w.format = parts[0].format;
  w.group = parts[0].group;
  w.has_offsets = parts[0].offsets != nullptr;
  for (const LinearSource& part : parts) {
    SERVAL_CHECK(part.k == w.k && part.matrix_format() == w.matrix_format(), part.k, w.k, format_row(part.format).name,
                 part.group, w.group);
    SERVAL_CHECK(w.format != WeightFormat::kTable4 ||
                 std::memcmp(part.table, parts[0].table, kTableSize * sizeof(float)) == 0);
    w.n += part.n;
  }
  for (size_t i = 0; i < biases.size(); ++i)
    SERVAL_CHECK(biases[i].dtype == DType::kF32 && biases[i].num_elements() == parts[i].n,
                 dtype_name(biases[i].dtype), biases[i].num_elements(), parts[i].n);
  return w;
}

void Backend::qk_norm_rope_write_kv(const QkNormRopeWriteKvArgs& args) {
  if (args.q_norm.data != nullptr) head_rms_norm(args.q, args.row_stride, args.q_norm, args.eps);
  if (args.k_norm.data != nullptr) head_rms_norm(args.k, args.row_stride, args.k_norm, args.eps);
  if (args.rotary_dim > 0) {
    // q and k lie side by side and turn alike: one call over both.
    const Tensor both(args.q.data, args.q.dtype,
                      {args.q.dim(0), args.q.dim(1) + args.k.dim(1), args.q.dim(2)});
    rope({.x = both,
          .row_stride = args.row_stride,
          .positions = args.positions,
          .cos_sin = args.cos_sin,
          .rotary_dim = args.rotary_dim});
  }
  write_kv({.k = args.k, .v = args.v, .row_stride = args.row_stride, .slots = args.slots, .kv = args.kv});
}

void Backend::linear_scan(const LinearScanArgs&) {
  SERVAL_CHECK(false, "linear_scan was asked of a device that has none");
}
void Backend::gated_scan(const GatedScanArgs&) {
  SERVAL_CHECK(false, "gated_scan was asked of a device that has none");
}
void Backend::mean_scan(const MeanScanArgs&) {
  SERVAL_CHECK(false, "mean_scan was asked of a device that has none");
}
void Backend::replacing_scan(const ReplacingScanArgs&) {
  SERVAL_CHECK(false, "replacing_scan was asked of a device that has none");
}
void Backend::choose_keys(const ChooseKeysArgs&) {
  SERVAL_CHECK(false, "choose_keys was asked of a device that has none");
}
void Backend::write_rows(const WriteRowsArgs&) {
  SERVAL_CHECK(false, "write_rows was asked of a device that has none");
}
void Backend::compress_rows(const CompressRowsArgs&) {
  SERVAL_CHECK(false, "compress_rows was asked of a device that has none");
}
void Backend::choose_rows(const ChooseRowsArgs&) {
  SERVAL_CHECK(false, "choose_rows was asked of a device that has none");
}
void Backend::attend_rows(const AttendRowsArgs&) {
  SERVAL_CHECK(false, "attend_rows was asked of a device that has none");
}
void Backend::collapse_residuals(const MixedResidualsArgs&, const Tensor&) {
  SERVAL_CHECK(false, "mixed residuals were asked of a device that has no ops of them");
}
void Backend::expand_residuals(const Tensor&, const Tensor&, const Tensor&) {
  SERVAL_CHECK(false, "mixed residuals were asked of a device that has no ops of them");
}
void Backend::mix_streams(const MixStreamsArgs&) {
  SERVAL_CHECK(false, "streams were asked of a device that has no ops of them");
}
void Backend::correct_streams(const CorrectStreamsArgs&) {
  SERVAL_CHECK(false, "streams were asked of a device that has no ops of them");
}
void Backend::match_size(const Tensor&, const Tensor&, float) {
  SERVAL_CHECK(false, "streams were asked of a device that has no ops of them");
}
void Backend::cut_rows(const Tensor&, int64_t, float) {
  SERVAL_CHECK(false, "streams were asked of a device that has no ops of them");
}

void Backend::head_linear(const HeadLinearArgs&) {
  SERVAL_CHECK(false, "head_linear was asked of a device that has none");
}
void Backend::copy_heads(const CopyHeadsArgs&) {
  SERVAL_CHECK(false, "copy_heads was asked of a device that has none");
}
void Backend::scan_gates(const ScanGatesArgs&) {
  SERVAL_CHECK(false, "scan_gates was asked of a device that has none");
}

}  // namespace serval
