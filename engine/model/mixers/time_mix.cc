#include "engine/model/mixers/time_mix.h"

#include "engine/model/mixers/state_parts.h"

namespace serval {

void mix_rows(Backend& backend, const MixerInput& in, const Tensor& h, const Buffer& mix, int64_t uses, const Tensor& copies,
              const Tensor& mixed) {
  const int64_t rows = h.dim(0), hidden = h.dim(1);
  backend.copy_heads({.x = Tensor(h.data, h.dtype, {rows, uses, hidden}),
                      .x_row_stride = hidden,
                      .x_head_stride = 0,
                      .out = Tensor(copies.data, copies.dtype, {rows, uses, hidden}),
                      .out_row_stride = uses * hidden,
                      .out_head_stride = hidden});
  backend.causal_conv({.x = copies,
                       .in_gate = {},
                       .out_gate = {},
                       .x_stride = uses * hidden,
                       .weight = vector_of(mix, {2, uses * hidden}),
                       .bias = {},
                       .has_silu = false,
                       .kv = in.kv,
                       .batch = &in.group.attention,
                       .out = mixed});
}

void project_mixed(Backend& backend, const Tensor& mixed, int64_t hidden, int64_t first, const std::vector<LinearWeight>& matrices,
                   const Tensor& out) {
  const int64_t rows = mixed.dim(0), width = out.dim(1), count = static_cast<int64_t>(matrices.size());
  backend.head_linear({.x = Tensor(mixed.at(first * hidden), mixed.dtype, {rows, count, hidden}),
                       .x_row_stride = mixed.dim(1),
                       .x_head_stride = hidden,
                       .heads = matrices,
                       .out = Tensor(out.data, out.dtype, {rows, count, width}),
                       .out_row_stride = width,
                       .out_head_stride = rows * width});
}

}  // namespace serval
