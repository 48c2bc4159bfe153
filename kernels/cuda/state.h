// Launchers of the recurrent layers' kernels (Gu and Dao 2023). Raw device pointers and strides in elements;
// they check nothing that their caller knows. T is Bf16 or Half. A thread has one channel of one sequence and
// takes its rows in their order, so where a prompt is cut changes no bit.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/number.h"

namespace serval::cuda {

// The sequences of a step and the blocks of their states, of which block i of a table covers positions
// [i * span, (i + 1) * span).
struct StateBatch {
  const int32_t* counts = nullptr;       // [2]: sequences, width of the block table
  const int32_t* row_start = nullptr;    // [sequences + 1]
  const int32_t* first_pos = nullptr;    // [sequences]
  const int32_t* block_table = nullptr;  // [sequences, width]
  const int32_t* slots = nullptr;        // [rows], AttentionBatch::state_slots; may be null
  int span = 0;
  int max_seqs = 0;  // how many may be there
};

// out = f(bias + causal convolution of x * in_gate) * out_gate, channel by channel; f is SiLU or nothing.
template <class T>
struct ConvArgs {
  StateBatch batch;
  const T* x;                     // [rows, channels]
  const T *in_gate, *out_gate;    // the same, may be null
  int64_t x_stride;               // of all three
  int taps;                       // 2..kMaxTaps
  const float* weight;            // [taps, channels]
  const float* bias;              // [channels], may be null
  bool has_silu;
  float* inputs;        // [blocks, taps - 1, channels]: the last ones, oldest first
  T* out;               // [rows, channels]
  int channels;
};
template <class T>
void causal_conv(simt::Stream stream, const ConvArgs<T>& args);

// h = h exp(dt a) + dt u b; out = (h . c + d u) * silu(gate), with dt = softplus of what is given.
template <class T>
struct ScanArgs {
  StateBatch batch;
  const T* u;       // [rows, channels]
  const float* dt;  // [rows, channels]
  const T *b, *c;   // [rows, states]
  int64_t bc_stride;
  const T* gate;  // [rows, channels]
  int64_t gate_stride;
  int num_states;  // 1..kMaxStates
  const float* a;  // [states, channels]
  const float* d;  // [channels]
  float* states;   // [blocks, states, channels]
  T* out;          // [rows, channels]
  int channels;
};
template <class T>
void selective_scan(simt::Stream stream, const ScanArgs<T>& args);

// What a linear scan's rows do to its states: step = softplus(x_scale x + bias) within [least, most], decay =
// exp(rate * step); or, with a lower bound, decay = exp(lower_bound * sigmoid(-rate * (x_scale x + bias))). strength:
// the step, or beta_scale * sigmoid(beta).
template <class T>
struct ScanGatesArgs {
  const T* x;  // [rows, n]
  int64_t x_stride;
  const T* beta;  // [rows, heads], may be null
  int64_t beta_stride;
  const float* bias;  // [n], may be null
  const float* rate;  // [heads]
  float x_scale, least, most, lower_bound, beta_scale;
  float* decay;     // [rows, n]
  float* strength;  // [rows, heads] with beta, else [rows, n]
  int rows, n, heads;
};
template <class T>
void scan_gates(simt::Stream stream, const ScanGatesArgs<T>& args);

// S = diag(decay) S; S += k (strength (v - m))^T with m = S^T k by the delta rule, else 0; out = scale S^T q + skip v.
// A thread has one value of one head of one sequence, and its column of the state in shared memory.
template <class T>
struct LinearScanArgs {
  StateBatch batch;
  const T *q, *k, *v;  // [rows, key_heads, keys], the same, [rows, heads, values]
  int64_t qkv_stride;
  const float* decay;    // of a row decays
  int64_t decay_stride;  // 0: one row for all
  int decays;            // heads, or heads * keys
  const float* strength;  // [rows, heads], may be null
  const float* skip;      // [heads], may be null
  bool has_delta_rule;
  float scale;
  float* states;  // [blocks, heads, keys, values]
  T* out;         // [rows, heads * values]
  int key_heads, heads, keys, values;
};
template <class T>
void linear_scan(simt::Stream stream, const LinearScanArgs<T>& args);

}  // namespace serval::cuda
