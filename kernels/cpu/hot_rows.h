// Kernels over one row of floats: norms, activations, rotation. Included by hot_kernels.cc alone.
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

// residual += x (which may be absent), for the vector at i; returns it.
inline Vec added(float* residual, const float* x, int64_t i, int lanes) {
  Vec r = load_some(residual + i, lanes);
  if (x != nullptr) {
    r += load_some(x + i, lanes);
    store_some(residual + i, r, lanes);
  }
  return r;
}

// Of n values whose sum went round four vector accumulators: an order that depends on n alone.
inline float mean_of(const Vec (&sums)[4], int64_t n) {
  return reduce_add((sums[0] + sums[1]) + (sums[2] + sums[3])) / static_cast<float>(n);
}
// What makes the mean square one.
inline Vec scale_of(const Vec (&squares)[4], int64_t n, float eps) {
  return broadcast(inverse_sqrt(mean_of(squares, n) + eps));
}

void rms_norm(float* residual, const float* x, const float* weight, float eps, float* out, int64_t n) {
  Vec squares[4] = {};
  int next = 0;
  for_vectors(n, [&](int64_t i, int lanes) {
    const Vec r = added(residual, x, i, lanes);
    squares[next] = fma(r, r, squares[next]);
    next = (next + 1) % 4;
  });
  const Vec scale = scale_of(squares, n, eps);
  for_vectors(n, [&](int64_t i, int lanes) {
    Vec v = load_some(residual + i, lanes) * scale;
    if (weight != nullptr) v *= load_some(weight + i, lanes);
    store_some(out + i, v, lanes);
  });
}

// The deviations are summed after the mean is known, which loses no digits to a large mean.
void layer_norm(float* residual, const float* x, const float* weight, const float* bias, float eps,
                float* out, int64_t n) {
  Vec sums[4] = {}, squares[4] = {};
  int next = 0;
  for_vectors(n, [&](int64_t i, int lanes) {
    sums[next] += added(residual, x, i, lanes);
    next = (next + 1) % 4;
  });
  const Vec mean = broadcast(mean_of(sums, n));
  next = 0;
  for_vectors(n, [&](int64_t i, int lanes) {
    float deviations[kLanes] = {};  // zeros beyond the row's end
    store_some(deviations, load_some(residual + i, lanes) - mean, lanes);
    const Vec d = load(deviations);
    squares[next] = fma(d, d, squares[next]);
    next = (next + 1) % 4;
  });
  const Vec scale = scale_of(squares, n, eps);
  for_vectors(n, [&](int64_t i, int lanes) {
    Vec v = (load_some(residual + i, lanes) - mean) * scale;
    if (weight != nullptr) v *= load_some(weight + i, lanes);
    if (bias != nullptr) v += load_some(bias + i, lanes);
    store_some(out + i, v, lanes);
  });
}

// x * sigmoid(x) (Elfwing et al. 2018).
inline Vec silu(Vec x) {
  return x / (1.0f + exp(-x));
}

// The tanh form of GELU (Hendrycks and Gimpel 2016, section 2): 0.5 x (1 + tanh(u)) = x * sigmoid(2u),
// u = sqrt(2/pi) (x + 0.044715 x^3).
inline Vec gelu_tanh(Vec x) {
  constexpr float kTwoRootTwoOverPi = 1.5957691216f;
  const Vec twice_u = kTwoRootTwoOverPi * (x + 0.044715f * x * x * x);
  return x / (1.0f + exp(-twice_u));
}

// x * Phi(x), Phi(x) = erfc(-x / sqrt(2)) / 2. For z >= 0, erfc(z) = e^(-z^2) R(t), t = 1 / (1 + z / 2) (the
// form of Abramowitz and Stegun 7.1.26); R through Chebyshev nodes for z in [0, 10], relative error 4.3e-8.
// The left side uses erfc itself, so that nothing cancels there.
inline Vec gelu(Vec x) {
  const Vec z = as_floats(as_ints(x) & 0x7fffffff) * 0.70710678f;
  const Vec t = 1.0f / (1.0f + 0.5f * z);
  Vec p = broadcast(-0.059068952f);
  p = fma(p, t, broadcast(0.284574926f));
  p = fma(p, t, broadcast(-0.487199813f));
  p = fma(p, t, broadcast(0.278067082f));
  p = fma(p, t, broadcast(-0.026625603f));
  p = fma(p, t, broadcast(0.202686846f));
  p = fma(p, t, broadcast(0.243103772f));
  p = fma(p, t, broadcast(0.282375306f));
  p = fma(p, t, broadcast(0.282086432f));
  const Vec tail = x * (0.5f * p * t * exp(-z * z));
  return x < 0.0f ? tail : x - tail;
}

inline Vec relu(Vec x) {
  return x < 0.0f ? Vec{} : x;  // NaN stays NaN
}
inline Vec relu2(Vec x) {
  return relu(x) * relu(x);
}
inline Vec gelu_sigmoid(Vec x) {
  return x / (1.0f + exp(-1.702f * x));
}

inline Vec sigmoid(Vec x) {
  return 1.0f / (1.0f + exp(-x));
}
inline Vec identity(Vec x) {
  return x;
}

// Streams lie `stride` apart; c [count, count].
void mix_streams_row(float* x, int64_t stride, int count, const float* c, int64_t n) {
  for_vectors(n, [&](int64_t i, int lanes) {
    Vec in[kMaxStreamsOfRow], out[kMaxStreamsOfRow];
    for (int s = 0; s < count; ++s) in[s] = load_some(x + s * stride + i, lanes);
    for (int o = 0; o < count; ++o) {
      out[o] = in[o];
      for (int s = 0; s < count; ++s) out[o] = fma(broadcast(c[o * count + s]), in[s], out[o]);
    }
    for (int s = 0; s < count; ++s) store_some(x + s * stride + i, out[s], lanes);
  });
}

void expand_residuals_row(float* x, int count, const float* post, const float* comb, const float* added, int64_t n) {
  for_vectors(n, [&](int64_t i, int lanes) {
    const Vec more = load_some(added + i, lanes);
    Vec in[kMaxStreamsOfRow];
    for (int s = 0; s < count; ++s) in[s] = load_some(x + s * n + i, lanes);
    for (int o = 0; o < count; ++o) {
      Vec sum = broadcast(post[o]) * more;
      for (int s = 0; s < count; ++s) sum = fma(broadcast(comb[s * count + o]), in[s], sum);
      store_some(x + o * n + i, sum, lanes);
    }
  });
}

// c [count], with the 1 that is added.
void correct_streams_row(float* x, int64_t stride, int count, const float* c, const float* before, const float* scale,
                         float* scaled, int64_t n) {
  for_vectors(n, [&](int64_t i, int lanes) {
    const Vec was = load_some(before + i, lanes), change = load_some(x + i, lanes) - was;
    for (int s = 0; s < count; ++s) {
      const Vec from = s == 0 ? was : load_some(x + s * stride + i, lanes);
      const Vec now = fma(broadcast(c[s]), change, from);
      store_some(x + s * stride + i, now, lanes);
      if (s == 0) store_some(scaled + i, now * load_some(scale + i, lanes), lanes);
    }
  });
}

void match_size_row(float* x, const float* target, float least, int64_t n) {
  Vec own[4] = {}, other[4] = {};
  int next = 0;
  for_vectors(n, [&](int64_t i, int lanes) {
    const Vec a = load_some(x + i, lanes), b = load_some(target + i, lanes);
    own[next] = fma(a, a, own[next]);
    other[next] = fma(b, b, other[next]);
    next = (next + 1) % 4;
  });
  const float size = mean_of(own, n), wanted = mean_of(other, n);
  // The root of the wanted size, and one over that of the row's own.
  const float root = wanted > 0 ? wanted * inverse_sqrt(wanted) : 0.0f;
  const Vec factor = broadcast(root * inverse_sqrt(size > least ? size : least));
  for_vectors(n, [&](int64_t i, int lanes) { store_some(x + i, load_some(x + i, lanes) * factor, lanes); });
}

void cut_row(float* x, float deviations, int64_t n) {
  Vec sums[4] = {}, squares[4] = {};
  int next = 0;
  for_vectors(n, [&](int64_t i, int lanes) {
    sums[next] += load_some(x + i, lanes);
    next = (next + 1) % 4;
  });
  const float average = mean_of(sums, n);
  const Vec mean = broadcast(average);
  next = 0;
  for_vectors(n, [&](int64_t i, int lanes) {
    float apart[kLanes] = {};  // zeros beyond the row's end
    store_some(apart, load_some(x + i, lanes) - mean, lanes);
    const Vec d = load(apart);
    squares[next] = fma(d, d, squares[next]);
    next = (next + 1) % 4;
  });
  const float variance = mean_of(squares, n);
  const float deviation = variance > 0 ? variance * inverse_sqrt(variance) : 0.0f;
  const Vec limit = broadcast(average + deviation * deviations);
  for_vectors(n, [&](int64_t i, int lanes) { store_some(x + i, relu(load_some(x + i, lanes) - limit), lanes); });
}

void xielu_row(const float* x, const float* alphas, float* out, int64_t n) {
  const Vec a = broadcast(alphas[0]), b = broadcast(alphas[1]);
  for_vectors(n, [&](int64_t i, int lanes) {
    const Vec v = load_some(x + i, lanes);
    const Vec below = v < -1e-6f ? v : broadcast(-1e-6f);
    const Vec bent = v > 0.0f ? a * v * v : b * (exp(below) - 1.0f - v);
    store_some(out + i, fma(broadcast(0.5f), v, bent), lanes);
  });
}

template <Vec (*act)(Vec)>
void gate_row(const float* gate, const float* up, float* out, int64_t n) {
  for_vectors(n, [&](int64_t i, int lanes) {
    store_some(out + i, act(load_some(gate + i, lanes)) * load_some(up + i, lanes), lanes);
  });
}
template <Vec (*act)(Vec)>
void activate_row(const float* x, float* out, int64_t n) {
  for_vectors(n, [&](int64_t i, int lanes) { store_some(out + i, act(load_some(x + i, lanes)), lanes); });
}

void weighted_sum(const float* x, const int32_t* indices, const float* weights, int count, float* out,
                  int64_t n) {
  for_vectors(n, [&](int64_t i, int lanes) {
    Vec sum = {};
    for (int j = 0; j < count; ++j)
      sum = fma(broadcast(weights[j]), load_some(x + indices[j] * n + i, lanes), sum);
    store_some(out + i, sum, lanes);
  });
}

void scaled_add(const float* x, float scale, const float* y, float* out, int64_t n) {
  for_vectors(n, [&](int64_t i, int lanes) {
    const Vec added = y != nullptr ? load_some(y + i, lanes) : Vec{};
    store_some(out + i, fma(broadcast(scale), load_some(x + i, lanes), added), lanes);
  });
}

// cap * tanh(x / cap): tanh(u) = 1 - 2 / (1 + e^(2u)), whose error is one of the cap's last places.
inline Vec capped(Vec x, float cap) {
  return cap - 2 * cap / (1.0f + exp(x * (2 / cap)));
}
void clamp(float* x, float limit, int64_t n) {
  for_vectors(n, [&](int64_t i, int lanes) {
    Vec v = load_some(x + i, lanes);
    v = v > limit ? broadcast(limit) : v;  // NaN stays NaN
    store_some(x + i, v < -limit ? broadcast(-limit) : v, lanes);
  });
}

void soft_cap(float* x, float cap, int64_t n) {
  for_vectors(n,
              [&](int64_t i, int lanes) { store_some(x + i, capped(load_some(x + i, lanes), cap), lanes); });
}

void rotate(float* x, const float* cos, const float* sin, int64_t half) {
  for_vectors(half, [&](int64_t i, int lanes) {
    const Vec a = load_some(x + i, lanes), b = load_some(x + half + i, lanes);
    const Vec c = load_some(cos + i, lanes), s = load_some(sin + i, lanes);
    store_some(x + i, a * c - b * s, lanes);
    store_some(x + half + i, b * c + a * s, lanes);
  });
}

void rotate_neighbours(float* x, const float* cos, const float* sin, float sign, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1], s = sign * sin[i];
    x[2 * i] = a * cos[i] - b * s;
    x[2 * i + 1] = b * cos[i] + a * s;
  }
}

void exp_row(const float* x, float* out, int64_t n) {
  for_vectors(n, [&](int64_t i, int lanes) { store_some(out + i, exp(load_some(x + i, lanes)), lanes); });
}

}  // namespace
}  // namespace serval::cpu
