// Launchers of the row-wise kernels: norms, rotation and KV write, gates, embedding. Raw device
// pointers and strides in elements; they check nothing that their caller knows. T is Bf16 or Half. Every
// output row depends on its own inputs alone, and its sums run over one tree fixed by the row's length.
#pragma once

#include <cstdint>

#include "kernels/activation.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/number.h"
#include "kernels/values.h"

namespace serval::cuda {

// residual += x (x may be null), rounded to T; out = residual / rms(residual) * weight (Zhang and Sennrich
// 2019), or, when is_centred, (residual - mean) / deviation * weight + bias (Ba et al. 2016; bias may be
// null).
template <class T>
struct AddNormArgs {
  T* residual;  // [rows, dim]
  const T* x;
  const float* weight;  // [dim], may be null
  float eps;
  T* out;
  int rows, dim;
  const float* bias = nullptr;  // [dim], may be null
  int64_t stride = 0;           // elements between rows; 0: dim
  int heads = 1;                // vectors of dim that lie one behind the other in a row, each with a weight and bias of its own
};
template <class T>
void add_norm(simt::Stream stream, bool is_centred, const AddNormArgs<T>& args);

// What becomes of a row's query, key and value heads before attention; each part may be left out.
template <class T>
struct QkNormRopeWriteKvArgs {
  T* q = nullptr;  // [rows, num_q, head_dim] with row_stride between rows; k and v likewise
  T* k = nullptr;
  T* v = nullptr;
  int rows = 0, num_q = 0, num_kv = 0, head_dim = 0;
  int64_t row_stride = 0;
  const float* q_norm = nullptr;  // [head_dim]: RMS norm of each head; null: none
  const float* k_norm = nullptr;
  bool has_plain_norm = false;  // what has no weight is normalised all the same
  float eps = 0;
  const int32_t* positions = nullptr;
  const float* cos_sin = nullptr;  // [positions, rotary_dim], cosines then sines; null: no rotation
  int rotary_dim = 0;
  // The paged cache, [block][kv head][position][dim]; null keys: q and k are written back in place instead.
  const int32_t* slots = nullptr;  // block * block_size + offset; negative: this row is not stored
  void* keys = nullptr;
  void* values = nullptr;
  bool is_fp8 = false;
  float key_scale = 1, value_scale = 1;  // an fp8 number times the scale is the value
  int block_size = 0;
};
template <class T>
void qk_norm_rope_write_kv(simt::Stream stream, const QkNormRopeWriteKvArgs<T>& args);

// out[r][i] = act(x[r][i]), or, when is_gated, act(x[r][i]) * x[r][width + i]. out may be x when not gated.
template <class T>
void activation(simt::Stream stream, Activation act, bool is_gated, const T* x, T* out, int rows, int width);
// out[r][i] = act(x[r][i]) * up[r][i], the rows of x and of up so far apart. out may be either that lies as it does.
template <class T>
void gate(simt::Stream stream, Activation act, const T* x, int64_t x_stride, const T* up, int64_t up_stride, T* out,
          int rows, int width);
// gate_up [rows, 2 * width] in place: gate = min(gate, limit), up = clamp(up, -limit, limit) + up_offset.
template <class T>
void clamp_gate_up(simt::Stream stream, T* gate_up, int rows, int width, float limit, float up_offset);

// out[r] = scale * table[id of r]; a negative id i stands for last_tokens[-1 - i].
template <class T>
void embed(simt::Stream stream, const T* table, const int32_t* ids, const int32_t* last_tokens, float scale,
           T* out, int rows, int dim);

// out[r] = x[rows[r]].
template <class T>
void gather_rows(simt::Stream stream, const T* x, const int32_t* rows, T* out, int num_rows, int dim);

// Positions of a paged cache to others, one after another. A place is block * block_size + offset.
struct KvMoves {
  static constexpr int kMost = 64;
  void* sides[2];  // keys, values: [block][kv head][position][row_bytes], a multiple of 16
  int row_bytes, num_kv_heads, block_size;
  int count;
  KvMove moves[kMost];
};
void move_kv(simt::Stream stream, const KvMoves& moves);

// out[i] = scale * x[i] + y[i] (y may be null); out may be x or y. T is float too.
template <class T>
void scaled_add(simt::Stream stream, const T* x, float scale, const T* y, T* out, int64_t count);

// x = what lies within -limit..limit, in place.
template <class T>
void clamp(simt::Stream stream, T* x, int64_t count, float limit);

// x = cap * tanh(x / cap), in place.
template <class T>
void xielu(simt::Stream stream, const T* x, const float* alphas, T* out, int64_t count);
void soft_cap(simt::Stream stream, float* x, int64_t count, float cap);

}  // namespace serval::cuda
