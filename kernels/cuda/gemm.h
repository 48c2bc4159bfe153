// y = x W^T + b over 16-bit weights with f32 sums. Two kernels of ours, for few and for many rows, with one
// order of summation: K is cut into slices of kSliceK, a slice is summed by matrix products in ascending k
// from zero, and the slices are added in ascending order from zero. So an output row has the same bits
// whatever the number of rows and whichever kernel runs, as far as the matrix unit adds the same way for each
// column, which the emulation has by construction and a GPU must confirm.
//
// Both take fragments straight from rows: inside a run of 32 k, lane t of a group of four holds k = 8t..8t+7,
// and the four pairs of those are the k pairs of two consecutive products (the order of k inside a product is
// free as long as both factors agree). That makes every access 16 bytes wide and needs no ldmatrix.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/number.h"
#include "kernels/expert_routing.h"

namespace serval::cuda {

inline constexpr int kSliceK = 512;
inline constexpr int kSkinnyRows = 16;  // most rows of x that the kernel for few rows takes

template <class T, class Out>
struct GemmArgs {
  const T* x;         // [m, k]
  const T* weight;    // [n, k]
  const float* bias;  // [n]; null: none
  Out* out;           // [m, n]
  int m, n, k;
};

// Picks the kernel by m alone. T: Bf16 or Half; Out: T or float.
template <class T, class Out>
void gemm(simt::Stream stream, const GemmArgs<T, Out>& args);

// One product for each expert, over the rows that lie between its starts: the same kernels, so that a row has
// the bits that gemm() gives it.
template <class T>
struct ExpertGemmArgs {
  const T* x;             // [num_places, k]
  T* out;                 // [num_places, n]
  const int32_t* starts;  // [num_experts + 1], on the device
  int num_rows;           // no expert has more places than that
  int num_places, num_experts, n, k;
  const T* weights[kMaxExperts];     // [n, k] of each expert
  const float* biases[kMaxExperts];  // [n]; null: none
};
template <class T>
void expert_gemm(simt::Stream stream, const ExpertGemmArgs<T>& args);

// Each kernel by itself, for tests and measurements. gemm_skinny: m <= kSkinnyRows.
template <class T, class Out>
void gemm_skinny(simt::Stream stream, const GemmArgs<T, Out>& args);
template <class T, class Out>
void gemm_tiled(simt::Stream stream, const GemmArgs<T, Out>& args);

}  // namespace serval::cuda
