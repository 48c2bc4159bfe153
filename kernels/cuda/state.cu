#include "kernels/cuda/state.h"

#include <cmath>

#include "kernels/cuda/ptx.h"
#include "kernels/cuda/simt.h"

namespace serval::cuda {
namespace {

using simt::Shared;
using simt::SharedMemory;

constexpr int kThreads = 128;  // channels of a block
constexpr int kMaxTaps = 8, kMaxStates = 32, kUsualStates = 16;

SERVAL_DEVICE float silu(float x) {
  return x / (1.0f + expf(-x));
}
SERVAL_DEVICE float softplus(float x) {
  return (x > 0 ? x : 0.0f) + log1pf(expf(x > 0 ? -x : x));
}

// Calls load(block) with what the rows of sequence s begin from, where there is any, then row(r) for each;
// store(block) after a row that is the last of a block's positions or of those that are kept.
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
    const auto is_kept = [&](int at) { return batch.slots == nullptr || batch.slots[at] >= 0; };
    if (is_kept(r) && (next % batch.span == 0 || r + 1 == end || !is_kept(r + 1))) store(int64_t{table[(next - 1) / batch.span]});
  }
}

template <class T>
SERVAL_KERNEL void SERVAL_MAX_THREADS(kThreads) causal_conv_kernel(ConvArgs<T> args) {
  const int c = simt::block_x() * kThreads + simt::thread(), s = simt::block_y();
  if (s >= args.batch.counts[0] || c >= args.channels) return;
  const int channels = args.channels, num_past = args.taps - 1;
  // Those of the last taps are behind: a convolution of fewer has weights of zero before them.
  float weight[kMaxTaps], past[kMaxTaps - 1];
  const int lacking = kMaxTaps - args.taps;
  SERVAL_UNROLL
  for (int t = 0; t < kMaxTaps; ++t) weight[t] = t < lacking ? 0.0f : args.weight[(t - lacking) * channels + c];
  SERVAL_UNROLL
  for (int t = 0; t < kMaxTaps - 1; ++t) past[t] = 0;
  const float bias = args.bias != nullptr ? args.bias[c] : 0.0f;
  float* const inputs = args.inputs + c;
  for_state_rows(
      args.batch, s,
      [&](int64_t block) {
        SERVAL_UNROLL
        for (int t = 0; t < kMaxTaps - 1; ++t)
          if (t >= lacking) past[t] = inputs[(block * num_past + t - lacking) * channels];
      },
      [&](int64_t r) {
        float x = to_float(args.x[r * args.x_stride + c]);
        if (args.in_gate != nullptr) x *= to_float(args.in_gate[r * args.x_stride + c]);
        float sum = bias;
        SERVAL_UNROLL
        for (int t = 0; t < kMaxTaps - 1; ++t)
          if (t >= lacking) sum += weight[t] * past[t];
        sum += weight[kMaxTaps - 1] * x;
        if (args.has_silu) sum = silu(sum);
        if (args.out_gate != nullptr) sum *= to_float(args.out_gate[r * args.x_stride + c]);
        args.out[r * channels + c] = from_float<T>(sum);
        SERVAL_UNROLL
        for (int t = 0; t + 1 < kMaxTaps - 1; ++t) past[t] = past[t + 1];
        past[kMaxTaps - 2] = x;
      },
      [&](int64_t block) {
        SERVAL_UNROLL
        for (int t = 0; t < kMaxTaps - 1; ++t)
          if (t >= lacking) inputs[(block * num_past + t - lacking) * channels] = past[t];
      });
}

// kMost: registers that a channel's states take.
template <class T, int kMost>
SERVAL_KERNEL void SERVAL_MAX_THREADS(kThreads) selective_scan_kernel(ScanArgs<T> args) {
  const int c = simt::block_x() * kThreads + simt::thread(), s = simt::block_y();
  if (s >= args.batch.counts[0] || c >= args.channels) return;
  const int channels = args.channels, num_states = args.num_states;
  float state[kMost], rate[kMost];
  SERVAL_UNROLL
  for (int n = 0; n < kMost; ++n) {
    state[n] = 0;
    rate[n] = n < num_states ? args.a[n * channels + c] : 0.0f;
  }
  const float skip = args.d[c];
  float* const states = args.states + c;
  for_state_rows(
      args.batch, s,
      [&](int64_t block) {
        SERVAL_UNROLL
        for (int n = 0; n < kMost; ++n)
          if (n < num_states) state[n] = states[(block * num_states + n) * channels];
      },
      [&](int64_t r) {
        const float u = to_float(args.u[r * channels + c]);
        const float dt = softplus(args.dt[r * channels + c]), input = dt * u;
        const T *const b = args.b + r * args.bc_stride, *const out = args.c + r * args.bc_stride;
        float y = skip * u;
        SERVAL_UNROLL
        for (int n = 0; n < kMost; ++n) {
          if (n >= num_states) continue;
          state[n] = state[n] * expf(dt * rate[n]) + input * to_float(b[n]);
          y += state[n] * to_float(out[n]);
        }
        y *= silu(to_float(args.gate[r * args.gate_stride + c]));
        args.out[r * channels + c] = from_float<T>(y);
      },
      [&](int64_t block) {
        SERVAL_UNROLL
        for (int n = 0; n < kMost; ++n)
          if (n < num_states) states[(block * num_states + n) * channels] = state[n];
      });
}

template <class T>
SERVAL_KERNEL void SERVAL_MAX_THREADS(kThreads) scan_gates_kernel(ScanGatesArgs<T> args) {
  const int r = simt::block_x(), i = simt::block_y() * kThreads + simt::thread(), n = args.n;
  if (i < n) {
    float x = args.x_scale * to_float(args.x[r * args.x_stride + i]);
    if (args.bias != nullptr) x += args.bias[i];
    const float rate = args.rate[i / (n / args.heads)];
    float step = softplus(x);
    step = step < args.least ? args.least : step;
    step = step > args.most ? args.most : step;
    const float logarithm = args.lower_bound != 0 ? args.lower_bound / (1.0f + expf(rate * x)) : rate * step;
    args.decay[int64_t{r} * n + i] = expf(logarithm);
    if (args.beta == nullptr) args.strength[int64_t{r} * n + i] = step;
  }
  if (args.beta != nullptr && i < args.heads)
    args.strength[int64_t{r} * args.heads + i] =
        args.beta_scale / (1.0f + expf(-to_float(args.beta[r * args.beta_stride + i])));
}

template <class T>
SERVAL_KERNEL void SERVAL_MAX_THREADS(simt::kWarp) linear_scan_kernel(LinearScanArgs<T> args) {
  const int keys = args.keys, values = args.values, slices = (values + simt::kWarp - 1) / simt::kWarp;
  const int head = simt::block_x() / slices, j = simt::block_x() % slices * simt::kWarp + simt::thread();
  const int s = simt::block_y();
  SharedMemory memory;
  const Shared<float> columns = memory.take<float>(keys * simt::kWarp);
  if (s >= args.batch.counts[0] || j >= values) return;
  const int at = simt::thread(), key_head = head * args.key_heads / args.heads;
  const int num_decays = args.decays > args.heads ? keys : 1;
  const float skip = args.skip != nullptr ? args.skip[head] : 0.0f;
  float* const states = args.states + int64_t{head} * keys * values + j;
  const int64_t block_floats = int64_t{args.heads} * keys * values;
  SERVAL_NO_UNROLL
  for (int n = 0; n < keys; ++n) columns.set(n * simt::kWarp + at, 0.0f);
  for_state_rows(
      args.batch, s,
      [&](int64_t block) {
        SERVAL_NO_UNROLL
        for (int n = 0; n < keys; ++n)
          columns.set(n * simt::kWarp + at, states[block * block_floats + int64_t{n} * values]);
      },
      [&](int64_t r) {
        const T *const q = args.q + r * args.qkv_stride + key_head * keys,
                *const k = args.k + r * args.qkv_stride + key_head * keys;
        const float* const decay = args.decay + r * args.decay_stride + head * num_decays;
        const float v = to_float(args.v[r * args.qkv_stride + head * values + j]);
        const float strength = args.strength != nullptr ? args.strength[r * args.heads + head] : 1.0f;
        float m = 0, y = 0;
        if (args.has_delta_rule) {
          SERVAL_NO_UNROLL
          for (int n = 0; n < keys; ++n) {
            const float state = columns.get(n * simt::kWarp + at) * decay[num_decays > 1 ? n : 0];
            columns.set(n * simt::kWarp + at, state);
            m += state * to_float(k[n]);
          }
        }
        const float u = strength * (v - m);
        SERVAL_NO_UNROLL
        for (int n = 0; n < keys; ++n) {
          float state = columns.get(n * simt::kWarp + at);
          if (!args.has_delta_rule) state *= decay[num_decays > 1 ? n : 0];
          state += to_float(k[n]) * u;
          columns.set(n * simt::kWarp + at, state);
          y += state * to_float(q[n]);
        }
        args.out[r * args.heads * values + head * values + j] = from_float<T>(args.scale * y + skip * v);
      },
      [&](int64_t block) {
        SERVAL_NO_UNROLL
        for (int n = 0; n < keys; ++n)
          states[block * block_floats + int64_t{n} * values] = columns.get(n * simt::kWarp + at);
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
  const simt::LaunchShape shape = shape_of(args.batch, args.channels);
  if (args.num_states <= kUsualStates) return simt::launch<selective_scan_kernel<T, kUsualStates>>(stream, shape, args);
  simt::launch<selective_scan_kernel<T, kMaxStates>>(stream, shape, args);
}

template <class T>
void scan_gates(simt::Stream stream, const ScanGatesArgs<T>& args) {
  simt::launch<scan_gates_kernel<T>>(
      stream, {.grid_x = args.rows, .grid_y = (args.n + kThreads - 1) / kThreads, .threads = kThreads}, args);
}

template <class T>
void linear_scan(simt::Stream stream, const LinearScanArgs<T>& args) {
  const int slices = (args.values + simt::kWarp - 1) / simt::kWarp;
  simt::launch<linear_scan_kernel<T>>(stream,
                                      {.grid_x = args.heads * slices,
                                       .grid_y = args.batch.max_seqs,
                                       .threads = simt::kWarp,
                                       .shared_bytes = args.keys * simt::kWarp * sizeof(float)},
                                      args);
}

#define SERVAL_INSTANTIATE(T)                                     \
  template void causal_conv<T>(simt::Stream, const ConvArgs<T>&); \
  template void scan_gates<T>(simt::Stream, const ScanGatesArgs<T>&); \
  template void linear_scan<T>(simt::Stream, const LinearScanArgs<T>&); \
  template void selective_scan<T>(simt::Stream, const ScanArgs<T>&);
SERVAL_INSTANTIATE(Bf16)
SERVAL_INSTANTIATE(Half)
#undef SERVAL_INSTANTIATE

}  // namespace serval::cuda
