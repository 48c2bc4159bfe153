#include "engine/model/mixed_residuals.h"

#include <algorithm>

namespace serval {

void MixedResidualsSpec::list(int64_t hidden, int64_t width, int64_t scales, const std::string& name, MixtureWeights& w,
                              SlotList& slots) const {
  slots.exact_linear(w.mix, name + ".fn", width, count * hidden);
  slots.vector(w.base, name + ".base", {width});
  slots.vector(w.scale, name + ".scale", {scales});
}

void MixedResidualsSpec::list_slots(int64_t hidden, const std::string& name, MixtureWeights& w, SlotList& slots) const {
  list(hidden, mixes_width(), 3, name, w, slots);
}

void MixedResidualsSpec::list_head_slots(int64_t hidden, MixtureWeights& w, SlotList& frame) const {
  list(hidden, count, 1, "hc_head", w, frame);
}

void MixedResidualsSpec::raise_limits(int64_t hidden, StepLimits& limits) const {
  if (!is_there()) return;
  limits.need(RareOp::kMixedResiduals);
  limits.max_k = std::max(limits.max_k, count * hidden);
}

void MixedResidualsSpec::begin(Backend& backend, const MixedRows& rows) const {
  const int64_t num_rows = rows.read.dim(0), hidden = rows.read.dim(1);
  backend.copy_heads({.x = Tensor(rows.read.data, rows.read.dtype, {num_rows, count, hidden}),
                      .x_row_stride = hidden,
                      .x_head_stride = 0,
                      .out = Tensor(rows.residuals.data, rows.residuals.dtype, {num_rows, count, hidden}),
                      .out_row_stride = count * hidden,
                      .out_head_stride = hidden});
}

void MixedResidualsSpec::mix(Backend& backend, const MixtureWeights& w, const MixedRows& rows, int64_t width) const {
  const int64_t num_rows = rows.read.dim(0);
  const Tensor normed(rows.scratch.data, rows.scratch.dtype, {num_rows, rows.residuals.dim(1)});
  const Tensor mixes(rows.mixes.data, DType::kF32, {num_rows, width});
  backend.add_rms_norm(rows.residuals, {}, {}, norm_eps, normed);
  backend.linear(normed, w.mix, mixes);
  backend.collapse_residuals({.residuals = rows.residuals,
                              .mixes = mixes,
                              .base = Tensor(w.base.data(), DType::kF32, {width}),
                              .scale = Tensor(w.scale.data(), DType::kF32, {static_cast<int64_t>(w.scale.bytes / sizeof(float))}),
                              .eps = eps,
                              .rounds = rounds},
                             rows.read);
}

void MixedResidualsSpec::collapse(Backend& backend, const MixtureWeights& w, const MixedRows& rows) const {
  mix(backend, w, rows, mixes_width());
}

void MixedResidualsSpec::expand(Backend& backend, const MixedRows& rows, const Tensor& x) const {
  backend.expand_residuals(rows.residuals, rows.mixes, x);
}

void MixedResidualsSpec::end(Backend& backend, const MixtureWeights& w, const MixedRows& rows) const {
  mix(backend, w, rows, count);
}

}  // namespace serval
