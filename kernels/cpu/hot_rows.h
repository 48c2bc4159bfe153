// Kernels over one row of floats: norm, gates, rotation. Included by hot_kernels.cc alone.
#pragma once

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/simd.h"

namespace serval::cpu {
namespace {

// Calls op(i, lanes) for consecutive vectors of [0, n).
template <class Op>
void for_vectors(int64_t n, const Op& op) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) op(i, kLanes);
  if (i < n) op(i, static_cast<int>(n - i));
}
inline Vec load_some(const float* p, int lanes) {
  return lanes == kLanes ? load(p) : load_part(p, lanes);
}
inline void store_some(float* p, Vec v, int lanes) {
  lanes == kLanes ? store(p, v) : store_part(p, v, lanes);
}

// The sum of squares goes round four vector accumulators: an order that depends on n alone.
void rms_norm(float* residual, const float* x, const float* weight, float eps, float* out, int64_t n) {
  Vec squares[4] = {};
  int next = 0;
  for_vectors(n, [&](int64_t i, int lanes) {
    Vec r = load_some(residual + i, lanes);
    if (x != nullptr) {
      r += load_some(x + i, lanes);
      store_some(residual + i, r, lanes);
    }
    squares[next] = fma(r, r, squares[next]);
    next = (next + 1) % 4;
  });
  const float mean =
      reduce_add((squares[0] + squares[1]) + (squares[2] + squares[3])) / static_cast<float>(n);
  const Vec scale = broadcast(inverse_sqrt(mean + eps));
  for_vectors(n, [&](int64_t i, int lanes) {
    store_some(out + i, load_some(residual + i, lanes) * scale * load_some(weight + i, lanes), lanes);
  });
}

// x * sigmoid(x) (Elfwing et al. 2018).
void silu_gate(const float* gate, const float* up, float* out, int64_t n) {
  for_vectors(n, [&](int64_t i, int lanes) {
    const Vec g = load_some(gate + i, lanes);
    store_some(out + i, g / (1.0f + exp(-g)) * load_some(up + i, lanes), lanes);
  });
}

// The tanh form of GELU (Hendrycks and Gimpel 2016, section 2): 0.5 x (1 + tanh(u)) = x * sigmoid(2u),
// u = sqrt(2/pi) (x + 0.044715 x^3).
void gelu_tanh_gate(const float* gate, const float* up, float* out, int64_t n) {
  constexpr float kTwoRootTwoOverPi = 1.5957691216f;
  for_vectors(n, [&](int64_t i, int lanes) {
    const Vec g = load_some(gate + i, lanes);
    const Vec twice_u = kTwoRootTwoOverPi * (g + 0.044715f * g * g * g);
    store_some(out + i, g / (1.0f + exp(-twice_u)) * load_some(up + i, lanes), lanes);
  });
}

void rotate(float* x, const float* cos, const float* sin, int64_t half) {
  for_vectors(half, [&](int64_t i, int lanes) {
    const Vec a = load_some(x + i, lanes), b = load_some(x + half + i, lanes);
    const Vec c = load_some(cos + i, lanes), s = load_some(sin + i, lanes);
    store_some(x + i, a * c - b * s, lanes);
    store_some(x + half + i, b * c + a * s, lanes);
  });
}

void exp_row(const float* x, float* out, int64_t n) {
  for_vectors(n, [&](int64_t i, int lanes) { store_some(out + i, exp(load_some(x + i, lanes)), lanes); });
}

}  // namespace
}  // namespace serval::cpu
