// The recurrent layers' ops: sequences times pieces of channels, spread over the pool.
#include <algorithm>

#include "kernels/base/check.h"
#include "kernels/cpu/cpu_backend.h"

namespace serval::cpu {

static_assert(kConvTaps == serval::kConvTaps && kScanStates == serval::kScanStates);

template <class Body>
void CpuBackend::for_state_pieces(const AttentionBatch& batch, const KvLayer& kv, int64_t channels,
                                  const Body& body) {
  constexpr int64_t kPiece = 128;  // channels: some microseconds of a row's work
  const int64_t pieces = (channels + kPiece - 1) / kPiece;
  pool_.for_each(batch.num_seqs * pieces, [&](int, int64_t task) {
    const int64_t s = task / pieces, begin = task % pieces * kPiece;
    body(batch.row_start[s], StateRows{.num_rows = batch.row_start[s + 1] - batch.row_start[s],
                                       .first_pos = batch.first_pos[s],
                                       .span = kv.block_size,
                                       .blocks = batch.block_table + s * batch.table_stride,
                                       .channels = channels,
                                       .begin = begin,
                                       .end = std::min(channels, begin + kPiece)});
  });
}

void CpuBackend::causal_conv(const CausalConvArgs& args) {
  const int64_t channels = args.out.dim(1);
  SERVAL_CHECK(args.x.dim(1) == channels && args.weight.num_elements() == kConvTaps * channels &&
                   args.batch->num_rows == args.out.dim(0),
               args.x.dim(1), channels, args.weight.num_elements(), args.batch->num_rows, args.out.dim(0));
  for_state_pieces(*args.batch, args.kv, channels, [&](int64_t row, const StateRows& rows) {
    kernels_.causal_conv({.rows = rows,
                          .x = args.x.as<float>() + row * args.x_stride,
                          .x_stride = args.x_stride,
                          .weight = args.weight.as<float>(),
                          .bias = args.bias.as<float>(),
                          .inputs = static_cast<float*>(args.kv.keys),
                          .out = args.out.as<float>() + row * channels});
  });
}

void CpuBackend::selective_scan(const SelectiveScanArgs& args) {
  const int64_t channels = args.out.dim(1);
  SERVAL_CHECK(args.a.num_elements() == kScanStates * channels && args.d.num_elements() == channels &&
                   args.dt.dtype == DType::kF32 && args.batch->num_rows == args.out.dim(0),
               args.a.num_elements(), args.d.num_elements(), channels, args.batch->num_rows, args.out.dim(0));
  for_state_pieces(*args.batch, args.kv, channels, [&](int64_t row, const StateRows& rows) {
    kernels_.selective_scan({.rows = rows,
                             .u = args.u.as<float>() + row * channels,
                             .dt = args.dt.as<float>() + row * channels,
                             .b = args.b.as<float>() + row * args.bc_stride,
                             .c = args.c.as<float>() + row * args.bc_stride,
                             .bc_stride = args.bc_stride,
                             .gate = args.gate.as<float>() + row * args.gate_stride,
                             .gate_stride = args.gate_stride,
                             .a = args.a.as<float>(),
                             .d = args.d.as<float>(),
                             .states = static_cast<float*>(args.kv.values),
                             .out = args.out.as<float>() + row * channels});
  });
}

}  // namespace serval::cpu
