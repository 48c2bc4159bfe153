// Launchers of what lies around the experts' products (gemm.h): choosing them, sorting rows by expert, adding
// their answers. Raw device pointers; they check nothing that their caller knows. Names and order are those
// of kernels/expert_routing.h. No atomics: every place is a function of what the rows chose, and sums run by
// rank.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/number.h"
#include "kernels/expert_routing.h"

namespace serval::cuda {

struct RouteArgs {
  const float* logits;  // [num_rows, num_experts]
  int num_rows, num_experts, top_k;
  RoutingRule rule;
  const float* bias;  // [num_experts]; null: none
  int32_t* experts;  // [num_rows, top_k]
  float* weights;    // [num_rows, top_k]
  int32_t* places;   // [num_rows, top_k]
  int32_t* rows;     // [num_rows * top_k]
  int32_t* starts;   // [num_experts + 1]
  const float* scales;  // [num_experts]; null: none
};
void route_experts(simt::Stream stream, const RouteArgs& args);

// out [num_rows * top_k, dim]: at each of a row's places the row times its weight.
template <class T>
struct DispatchArgs {
  const T* x;             // [num_rows, dim]
  const int32_t* places;  // [num_rows, top_k]
  const float* weights;   // [num_rows, top_k]
  T* out;
  int num_rows, top_k, dim;
};
template <class T>
void dispatch_weighted(simt::Stream stream, const DispatchArgs<T>& args);

template <class T>
struct CombineArgs {
  const T* x;             // [num_rows * top_k, dim], and behind them [num_rows, dim] where has_shared
  const int32_t* places;  // [num_rows, top_k]
  const float* weights;   // [num_rows, top_k]; null: 1
  T* out;                 // [num_rows, dim]
  int num_rows, top_k, dim;
  bool has_shared = false;
  const float* shared_gate = nullptr;  // [num_rows]; null: none
};
template <class T>
void combine_experts(simt::Stream stream, const CombineArgs<T>& args);

}  // namespace serval::cuda
