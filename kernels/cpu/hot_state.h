// Kernels of a recurrent layer over some channels of one sequence's rows. A lane is a channel, so nothing is
// summed across lanes, and rows come one after the other: where a prompt is cut changes no bit. Included by
// hot_kernels.cc alone.
#pragma once

#include "kernels/cpu/hot_rows.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/simd.h"

namespace serval::cpu {
namespace {

// ln(1 + e^x) without loss at either end: max(x, 0) + ln(1 + t), t = e^-|x|, and ln(1 + t) as
// 2 artanh(t / (2 + t)), whose argument is at most 1/3: eight terms leave a relative error of 1e-9.
inline Vec softplus(Vec x) {
  const Vec t = exp(x > 0.0f ? -x : x);
  const Vec s = t / (2.0f + t), square = s * s;
  Vec sum = broadcast(1.0f / 15);
  for (const float term : {1.0f / 13, 1.0f / 11, 1.0f / 9, 1.0f / 7, 1.0f / 5, 1.0f / 3, 1.0f})
    sum = fma(sum, square, broadcast(term));
  return max(x, broadcast(0.0f)) + 2.0f * s * sum;
}

// Calls load(block) with what the rows begin from, where there is any, then row(r) for each; store(block)
// after a row that is the last of a block's positions or of the rows.
template <class Load, class Row, class Store>
inline void for_state_rows(const StateRows& rows, const Load& load, const Row& row, const Store& store) {
  if (rows.first_pos > 0) load(int64_t{rows.blocks[(rows.first_pos - 1) / rows.span]});
  for (int r = 0; r < rows.num_rows; ++r) {
    row(r);
    const int next = rows.first_pos + r + 1;
    if (next % rows.span == 0 || r + 1 == rows.num_rows) store(int64_t{rows.blocks[(next - 1) / rows.span]});
  }
}

void causal_conv(const ConvArgs& a) {
  const int64_t channels = a.rows.channels;
  for_vectors(a.rows.end - a.rows.begin, [&](int64_t i, int lanes) {
    const int64_t c = a.rows.begin + i;
    Vec weight[kConvTaps], past[kConvTaps - 1] = {};
    for (int t = 0; t < kConvTaps; ++t) weight[t] = load_some(a.weight + t * channels + c, lanes);
    const Vec bias = a.bias == nullptr ? Vec{} : load_some(a.bias + c, lanes);
    const auto at = [&](int64_t block, int t) {
      return a.inputs + (block * (kConvTaps - 1) + t) * channels + c;
    };
    for_state_rows(
        a.rows,
        [&](int64_t block) {
          for (int t = 0; t < kConvTaps - 1; ++t) past[t] = load_some(at(block, t), lanes);
        },
        [&](int r) {
          const Vec x = load_some(a.x + r * a.x_stride + c, lanes);
          Vec sum = bias;
          for (int t = 0; t < kConvTaps - 1; ++t) sum = fma(weight[t], past[t], sum);
          sum = fma(weight[kConvTaps - 1], x, sum);
          store_some(a.out + r * channels + c, silu(sum), lanes);
          for (int t = 0; t + 1 < kConvTaps - 1; ++t) past[t] = past[t + 1];
          past[kConvTaps - 2] = x;
        },
        [&](int64_t block) {
          for (int t = 0; t < kConvTaps - 1; ++t) store_some(at(block, t), past[t], lanes);
        });
  });
}

void selective_scan(const ScanArgs& a) {
  const int64_t channels = a.rows.channels;
  for_vectors(a.rows.end - a.rows.begin, [&](int64_t i, int lanes) {
    const int64_t c = a.rows.begin + i;
    Vec state[kScanStates] = {};
    const auto at = [&](int64_t block, int n) { return a.states + (block * kScanStates + n) * channels + c; };
    const Vec skip = load_some(a.d + c, lanes);
    for_state_rows(
        a.rows,
        [&](int64_t block) {
          for (int n = 0; n < kScanStates; ++n) state[n] = load_some(at(block, n), lanes);
        },
        [&](int r) {
          const Vec u = load_some(a.u + r * channels + c, lanes);
          const Vec dt = softplus(load_some(a.dt + r * channels + c, lanes)), input = dt * u;
          const float *const b = a.b + r * a.bc_stride, *const out = a.c + r * a.bc_stride;
          Vec y = skip * u;
          for (int n = 0; n < kScanStates; ++n) {
            const Vec decay = exp(dt * load_some(a.a + n * channels + c, lanes));
            state[n] = fma(state[n], decay, input * broadcast(b[n]));
            y = fma(state[n], broadcast(out[n]), y);
          }
          y *= silu(load_some(a.gate + r * a.gate_stride + c, lanes));
          store_some(a.out + r * channels + c, y, lanes);
        },
        [&](int64_t block) {
          for (int n = 0; n < kScanStates; ++n) store_some(at(block, n), state[n], lanes);
        });
  });
}

}  // namespace
}  // namespace serval::cpu
