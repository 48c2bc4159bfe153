// The recurrent layers' ops: sequences times pieces of channels, spread over the pool.
#include <algorithm>

#include "kernels/base/check.h"
#include "kernels/cpu/cpu_backend.h"

namespace serval::cpu {

static_assert(kMaxConvTaps == serval::kMaxConvTaps && kMaxScanStates == serval::kMaxScanStates &&
              kMaxScanKeys == serval::kMaxScanKeys);

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
                                       .slots = batch.state_slots == nullptr ? nullptr : batch.state_slots + batch.row_start[s],
                                       .channels = channels,
                                       .begin = begin,
                                       .end = std::min(channels, begin + kPiece)});
  });
}

void CpuBackend::causal_conv(const CausalConvArgs& args) {
  const int64_t channels = args.out.dim(1), taps = args.weight.dim(0);
  SERVAL_CHECK(args.x.dim(1) == channels && args.weight.dim(1) == channels && taps >= 2 && taps <= kMaxConvTaps &&
                   args.kv.conv_floats == (taps - 1) * channels && args.batch->num_rows == args.out.dim(0),
               args.x.dim(1), channels, args.weight.dim(1), taps, args.kv.conv_floats, args.batch->num_rows,
               args.out.dim(0));
  for_state_pieces(*args.batch, args.kv, channels, [&](int64_t row, const StateRows& rows) {
    const auto slice = [&](const Tensor& x) {
      return x.data == nullptr ? nullptr : x.as<float>() + row * args.x_stride;
    };
    kernels_.causal_conv({.rows = rows,
                          .x = slice(args.x),
                          .in_gate = slice(args.in_gate),
                          .out_gate = slice(args.out_gate),
                          .x_stride = args.x_stride,
                          .taps = static_cast<int>(taps),
                          .weight = args.weight.as<float>(),
                          .bias = args.bias.as<float>(),
                          .has_silu = args.has_silu,
                          .inputs = static_cast<float*>(args.kv.keys),
                          .out = args.out.as<float>() + row * channels});
  });
}

void CpuBackend::selective_scan(const SelectiveScanArgs& args) {
  const int64_t channels = args.out.dim(1), num_states = args.a.dim(0);
  SERVAL_CHECK(args.a.dim(1) == channels && num_states >= 1 && num_states <= kMaxScanStates &&
                   args.kv.scan_floats == num_states * channels && args.d.num_elements() == channels &&
                   args.dt.dtype == DType::kF32 && args.batch->num_rows == args.out.dim(0) && channels % args.heads == 0,
               args.a.dim(1), num_states, args.kv.scan_floats, args.d.num_elements(), channels, args.batch->num_rows,
               args.out.dim(0), args.heads);
  const int64_t head_channels = channels / args.heads;
  for_state_pieces(*args.batch, args.kv, channels, [&](int64_t row, const StateRows& rows) {
    // A piece may begin and end within a head.
    for (int64_t begin = rows.begin; begin < rows.end;) {
      const int64_t head = begin / head_channels;
      StateRows own = rows;
      own.begin = begin;
      own.end = std::min(rows.end, (head + 1) * head_channels);
      kernels_.selective_scan({.rows = own,
                               .u = args.u.as<float>() + row * channels,
                               .dt = args.dt.as<float>() + row * channels,
                               .b = args.b.as<float>() + row * args.bc_stride + head * args.bc_head_stride,
                               .c = args.c.as<float>() + row * args.bc_stride + head * args.bc_head_stride,
                               .bc_stride = args.bc_stride,
                               .gate = args.gate.as<float>() + row * args.gate_stride,
                               .gate_stride = args.gate_stride,
                               .num_states = static_cast<int>(num_states),
                               .a = args.a.as<float>(),
                               .d = args.d.as<float>(),
                               .states = static_cast<float*>(args.kv.values),
                               .out = args.out.as<float>() + row * channels});
      begin = own.end;
    }
  });
}

void CpuBackend::gated_scan(const GatedScanArgs& args) {
  const int64_t channels = args.out.dim(1);
  SERVAL_CHECK(args.x.dim(1) == channels && args.rate.num_elements() == channels && args.kv.scan_floats == channels &&
                   args.batch->num_rows == args.out.dim(0),
               args.x.dim(1), args.rate.num_elements(), args.kv.scan_floats, channels, args.batch->num_rows,
               args.out.dim(0));
  for_state_pieces(*args.batch, args.kv, channels, [&](int64_t row, const StateRows& rows) {
    kernels_.gated_scan({.rows = rows,
                         .x = args.x.as<float>() + row * channels,
                         .in_gate = args.in_gate.as<float>() + row * channels,
                         .decay_gate = args.decay_gate.as<float>() + row * channels,
                         .in_bias = args.in_bias.as<float>(),
                         .decay_bias = args.decay_bias.as<float>(),
                         .rate = args.rate.as<float>(),
                         .states = static_cast<float*>(args.kv.values),
                         .out = args.out.as<float>() + row * channels});
  });
}

void CpuBackend::mean_scan(const MeanScanArgs& args) {
  const int64_t channels = args.out.dim(1);
  SERVAL_CHECK(args.k.dim(1) == channels && args.v.dim(1) == channels && args.decay.num_elements() == channels &&
                   args.first.num_elements() == channels && args.kv.scan_floats == 3 * channels &&
                   args.batch->num_rows == args.out.dim(0),
               args.k.dim(1), args.v.dim(1), args.kv.scan_floats, channels, args.batch->num_rows, args.out.dim(0));
  for_state_pieces(*args.batch, args.kv, channels, [&](int64_t row, const StateRows& rows) {
    kernels_.mean_scan({.rows = rows,
                        .k = args.k.as<float>() + row * channels,
                        .v = args.v.as<float>() + row * channels,
                        .decay = args.decay.as<float>(),
                        .first = args.first.as<float>(),
                        .states = static_cast<float*>(args.kv.values),
                        .out = args.out.as<float>() + row * channels});
  });
}

// A piece is of whole vectors of the values of all heads in a row: it may begin and end within a head. Calls body(head, rows)
// for each head of `values` that it has some of.
template <class Body>
void for_head_pieces(const StateRows& rows, int64_t values, const Body& body) {
  for (int64_t begin = rows.begin; begin < rows.end;) {
    const int64_t head = begin / values, end = std::min(rows.end, (head + 1) * values);
    StateRows own = rows;
    own.channels = values;
    own.begin = begin - head * values;
    own.end = end - head * values;
    body(head, own);
    begin = end;
  }
}

// Sequences times heads times some of a head's values.
void CpuBackend::linear_scan(const serval::LinearScanArgs& args) {
  const int64_t heads = args.v.dim(1), values = args.v.dim(2), key_heads = args.k.dim(1), keys = args.k.dim(2);
  const int64_t decays = args.decay.dim(1), rows_of_decay = args.decay.dim(0), num_rows = args.out.dim(0);
  SERVAL_CHECK(heads % key_heads == 0 && keys >= 1 && keys <= kMaxScanKeys && args.q.dim(1) == key_heads &&
                   args.q.dim(2) == keys && (decays == heads || decays == heads * keys) &&
                   (rows_of_decay == num_rows || rows_of_decay == 1) && args.kv.scan_floats == heads * keys * values &&
                   args.batch->num_rows == num_rows,
               heads, key_heads, keys, args.q.dim(1), args.q.dim(2), decays, rows_of_decay, num_rows,
               args.kv.scan_floats, args.batch->num_rows);
  for_state_pieces(*args.batch, args.kv, heads * values, [&](int64_t row, const StateRows& rows) {
    for_head_pieces(rows, values, [&](int64_t head, const StateRows& own) {
      const int64_t key_head = head * key_heads / heads;
      const int64_t decay_stride = rows_of_decay == 1 ? 0 : decays;
      kernels_.linear_scan(
          {.rows = own,
           .keys = static_cast<int>(keys),
           .q = args.q.as<float>() + row * args.qkv_stride + key_head * keys,
           .k = args.k.as<float>() + row * args.qkv_stride + key_head * keys,
           .v = args.v.as<float>() + row * args.qkv_stride + head * values,
           .qkv_stride = args.qkv_stride,
           .decay = args.decay.as<float>() + row * decay_stride + head * decays / heads,
           .decay_stride = decay_stride,
           .decays_by_key = decays > heads,
           .strength = args.strength.data == nullptr ? nullptr : args.strength.as<float>() + row * heads + head,
           .strength_stride = heads,
           .has_delta_rule = args.has_delta_rule,
           .scale = args.scale,
           .skip = args.skip.data == nullptr ? 0.0f : args.skip.as<float>()[head],
           .states = static_cast<float*>(args.kv.values) + head * keys * values,
           .block_floats = args.kv.scan_floats,
           .out = args.out.as<float>() + row * heads * values + head * values,
           .out_stride = heads * values});
    });
  });
}

void CpuBackend::replacing_scan(const ReplacingScanArgs& args) {
  const int64_t heads = args.v.dim(1), dim = args.v.dim(2), width = heads * dim;
  SERVAL_CHECK(dim >= 1 && dim <= kMaxScanKeys && args.decay.dim(1) == width && args.rate.dim(1) == width &&
                   args.key_scale.num_elements() == width && args.key_rate.num_elements() == width &&
                   args.bonus.num_elements() == width && args.kv.scan_floats == width * dim &&
                   args.batch->num_rows == args.out.dim(0),
               heads, dim, args.decay.dim(1), args.rate.dim(1), args.key_scale.num_elements(), args.kv.scan_floats,
               args.batch->num_rows, args.out.dim(0));
  for_state_pieces(*args.batch, args.kv, width, [&](int64_t row, const StateRows& rows) {
    for_head_pieces(rows, dim, [&](int64_t head, const StateRows& own) {
      const auto at = [&](const Tensor& x) { return x.as<float>() + row * width + head * dim; };
      kernels_.replacing_scan({.rows = own,
                               .dim = static_cast<int>(dim),
                               .r = at(args.r),
                               .k = at(args.k),
                               .v = at(args.v),
                               .decay = at(args.decay),
                               .rate = at(args.rate),
                               .stride = width,
                               .key_scale = args.key_scale.as<float>() + head * dim,
                               .key_rate = args.key_rate.as<float>() + head * dim,
                               .bonus = args.bonus.as<float>() + head * dim,
                               .length_eps = args.length_eps,
                               .states = static_cast<float*>(args.kv.values) + head * dim * dim,
                               .block_floats = args.kv.scan_floats,
                               .out = at(args.out),
                               .direct = at(args.direct)});
    });
  });
}

void CpuBackend::scan_gates(const ScanGatesArgs& args) {
  const int64_t n = args.decay.dim(1), heads = args.rate.num_elements();
  const bool has_beta = args.beta.data != nullptr;
  SERVAL_CHECK(n % heads == 0 && args.strength.dim(1) == (has_beta ? heads : n), n, heads, args.strength.dim(1));
  const auto sigmoid = kernels_.activate[static_cast<int>(Activation::kSigmoid)];
  for_rows(args.decay.dim(0), 4 * n, [&](int64_t r) {
    float* const strength = args.strength.as<float>() + r * args.strength.dim(1);
    kernels_.decay_row({.x = args.x.as<float>() + r * args.x_stride,
                        .bias = args.bias.as<float>(),
                        .rate = args.rate.as<float>(),
                        .n = n,
                        .share = n / heads,
                        .x_scale = args.x_scale,
                        .least = args.least,
                        .most = args.most,
                        .lower_bound = args.lower_bound,
                        .step = has_beta ? nullptr : strength,
                        .decay = args.decay.as<float>() + r * n});
    if (!has_beta) return;
    sigmoid(args.beta.as<float>() + r * args.beta_stride, strength, heads);
    for (int64_t h = 0; h < heads; ++h) strength[h] *= args.beta_scale;
  });
}

}  // namespace serval::cpu
