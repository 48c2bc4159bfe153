#include "kernels/cuda/state.h"

#include <cmath>

#include "kernels/cuda/ptx.h"
#include "kernels/cuda/simt.h"

namespace serval::cuda {
namespace {

constexpr int kThreads = 128;  // channels of a block
constexpr int kTaps = 4, kStates = 16;

SERVAL_DEVICE float silu(float x) {
  return x / (1.0f + expf(-x));
}
SERVAL_DEVICE float softplus(float x) {
  return (x > 0 ? x : 0.0f) + log1pf(expf(x > 0 ? -x : x));
}

// Calls load(block) with what the rows of sequence s begin from, where there is any, then row(r) for each;
// store(block) after a row that is the last of a block's positions or of the rows.
template <class Load, class Row, class Store>
SERVAL_DEVICE void for_state_rows(const StateBatch& batch, int s, const Load& load, const Row& row,
                                  const Store& store) {
  const int32_t* const table = batch.block_table + int64_t{s} * batch.counts[1];
  const int begin = batch.row_start[s], end = batch.row_start[s + 1], first_pos = batch.first_pos[s];
  if (first_pos > 0) load(int64_t{table[(first_pos - 1) / batch.span]});
  SERVAL_NO_UNROLL
  for (int r = begin; r < end; ++r) {
    row(int64_t{r});
    const int next = first_pos + r - begin + 1;
    if (next % batch.span == 0 || r + 1 == end) store(int64_t{table[(next - 1) / batch.span]});
  }
}

template <class T>
SERVAL_KERNEL void SERVAL_MAX_THREADS(kThreads) causal_conv_kernel(ConvArgs<T> args) {
  const int c = simt::block_x() * kThreads + simt::thread(), s = simt::block_y();
  if (s >= args.batch.counts[0] || c >= args.channels) return;
  const int channels = args.channels;
  float weight[kTaps], past[kTaps - 1];
  SERVAL_UNROLL
  for (int t = 0; t < kTaps; ++t) weight[t] = args.weight[t * channels + c];
  SERVAL_UNROLL
  for (int t = 0; t < kTaps - 1; ++t) past[t] = 0;
  const float bias = args.bias != nullptr ? args.bias[c] : 0.0f;
  float* const inputs = args.inputs + c;
  for_state_rows(
      args.batch, s,
      [&](int64_t block) {
        SERVAL_UNROLL
        for (int t = 0; t < kTaps - 1; ++t) past[t] = inputs[(block * (kTaps - 1) + t) * channels];
      },
      [&](int64_t r) {
        const float x = to_float(args.x[r * args.x_stride + c]);
        float sum = bias;
        SERVAL_UNROLL
        for (int t = 0; t < kTaps - 1; ++t) sum += weight[t] * past[t];
        sum += weight[kTaps - 1] * x;
        args.out[r * channels + c] = from_float<T>(silu(sum));
        SERVAL_UNROLL
        for (int t = 0; t + 1 < kTaps - 1; ++t) past[t] = past[t + 1];
        past[kTaps - 2] = x;
      },
      [&](int64_t block) {
        SERVAL_UNROLL
        for (int t = 0; t < kTaps - 1; ++t) inputs[(block * (kTaps - 1) + t) * channels] = past[t];
      });
}

template <class T>
SERVAL_KERNEL void SERVAL_MAX_THREADS(kThreads) selective_scan_kernel(ScanArgs<T> args) {
  const int c = simt::block_x() * kThreads + simt::thread(), s = simt::block_y();
  if (s >= args.batch.counts[0] || c >= args.channels) return;
  const int channels = args.channels;
  float state[kStates], rate[kStates];
  SERVAL_UNROLL
  for (int n = 0; n < kStates; ++n) {
    state[n] = 0;
    rate[n] = args.a[n * channels + c];
  }
  const float skip = args.d[c];
  float* const states = args.states + c;
  for_state_rows(
      args.batch, s,
      [&](int64_t block) {
        SERVAL_UNROLL
        for (int n = 0; n < kStates; ++n) state[n] = states[(block * kStates + n) * channels];
      },
      [&](int64_t r) {
        const float u = to_float(args.u[r * channels + c]);
        const float dt = softplus(args.dt[r * channels + c]), input = dt * u;
        const T *const b = args.b + r * args.bc_stride, *const out = args.c + r * args.bc_stride;
        float y = skip * u;
        SERVAL_UNROLL
        for (int n = 0; n < kStates; ++n) {
          state[n] = state[n] * expf(dt * rate[n]) + input * to_float(b[n]);
          y += state[n] * to_float(out[n]);
        }
        y *= silu(to_float(args.gate[r * args.gate_stride + c]));
        args.out[r * channels + c] = from_float<T>(y);
      },
      [&](int64_t block) {
        SERVAL_UNROLL
        for (int n = 0; n < kStates; ++n) states[(block * kStates + n) * channels] = state[n];
      });
}

simt::LaunchShape shape_of(const StateBatch& batch, int channels) {
  return {.grid_x = (channels + kThreads - 1) / kThreads, .grid_y = batch.max_seqs, .threads = kThreads};
}

}  // namespace

template <class T>
void causal_conv(simt::Stream stream, const ConvArgs<T>& args) {
  simt::launch<causal_conv_kernel<T>>(stream, shape_of(args.batch, args.channels), args);
}

template <class T>
void selective_scan(simt::Stream stream, const ScanArgs<T>& args) {
  simt::launch<selective_scan_kernel<T>>(stream, shape_of(args.batch, args.channels), args);
}

#define SERVAL_INSTANTIATE(T)                                     \
  template void causal_conv<T>(simt::Stream, const ConvArgs<T>&); \
  template void selective_scan<T>(simt::Stream, const ScanArgs<T>&);
SERVAL_INSTANTIATE(Bf16)
SERVAL_INSTANTIATE(Half)
#undef SERVAL_INSTANTIATE

}  // namespace serval::cuda
