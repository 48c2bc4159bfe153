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
// after a row that is the last of a block's positions or of those that are kept.
template <class Load, class Row, class Store>
inline void for_state_rows(const StateRows& rows, const Load& load, const Row& row, const Store& store) {
  int num_kept = rows.num_rows;
  while (rows.slots != nullptr && num_kept > 0 && rows.slots[num_kept - 1] < 0) --num_kept;
  if (rows.first_pos > 0) load(int64_t{rows.blocks[(rows.first_pos - 1) / rows.span]});
  for (int r = 0; r < rows.num_rows; ++r) {
    row(r);
    const int next = rows.first_pos + r + 1;
    if (r + 1 == num_kept || (r < num_kept && next % rows.span == 0)) store(int64_t{rows.blocks[(next - 1) / rows.span]});
  }
}

template <int kTaps>
void conv_of(const ConvArgs& a) {
  const int64_t channels = a.rows.channels;
  for_vectors(a.rows.end - a.rows.begin, [&](int64_t i, int lanes) {
    const int64_t c = a.rows.begin + i;
    Vec weight[kTaps], past[kTaps - 1] = {};
    for (int t = 0; t < kTaps; ++t) weight[t] = load_some(a.weight + t * channels + c, lanes);
    const Vec bias = a.bias == nullptr ? Vec{} : load_some(a.bias + c, lanes);
    const auto at = [&](int64_t block, int t) { return a.inputs + (block * (kTaps - 1) + t) * channels + c; };
    for_state_rows(
        a.rows,
        [&](int64_t block) {
          for (int t = 0; t < kTaps - 1; ++t) past[t] = load_some(at(block, t), lanes);
        },
        [&](int r) {
          Vec x = load_some(a.x + r * a.x_stride + c, lanes);
          if (a.in_gate != nullptr) x *= load_some(a.in_gate + r * a.x_stride + c, lanes);
          Vec sum = bias;
          for (int t = 0; t < kTaps - 1; ++t) sum = fma(weight[t], past[t], sum);
          sum = fma(weight[kTaps - 1], x, sum);
          if (a.has_silu) sum = silu(sum);
          if (a.out_gate != nullptr) sum *= load_some(a.out_gate + r * a.x_stride + c, lanes);
          store_some(a.out + r * channels + c, sum, lanes);
          for (int t = 0; t + 1 < kTaps - 1; ++t) past[t] = past[t + 1];
          past[kTaps - 2] = x;
        },
        [&](int64_t block) {
          for (int t = 0; t < kTaps - 1; ++t) store_some(at(block, t), past[t], lanes);
        });
  });
}

void causal_conv(const ConvArgs& a) {
  constexpr void (*kByTaps[])(const ConvArgs&) = {conv_of<2>, conv_of<3>, conv_of<4>, conv_of<5>,
                                                  conv_of<6>, conv_of<7>, conv_of<8>};
  static_assert(sizeof kByTaps / sizeof *kByTaps == kMaxConvTaps - 1);
  kByTaps[a.taps - 2](a);
}

inline Vec square_root(Vec x) {
  float values[kLanes];
  store(values, x);
  for (float& value : values) value = __builtin_sqrtf(value);
  return load(values);
}

// 1 - e^x for x <= 0, without loss near 0.
inline Vec one_less_exp(Vec x) {
  Vec sum = broadcast(1.0f / 120);
  for (const float term : {1.0f / 24, 1.0f / 6, 1.0f / 2, 1.0f}) sum = fma(sum, x, broadcast(term));
  return x > -0.1f ? -x * sum : 1.0f - exp(x);
}

void gated_scan(const GatedScanOfRows& a) {
  const int64_t channels = a.rows.channels;
  for_vectors(a.rows.end - a.rows.begin, [&](int64_t i, int lanes) {
    const int64_t c = a.rows.begin + i;
    const Vec in_bias = load_some(a.in_bias + c, lanes), decay_bias = load_some(a.decay_bias + c, lanes),
              rate = load_some(a.rate + c, lanes);
    Vec state{};
    for_state_rows(
        a.rows, [&](int64_t block) { state = load_some(a.states + block * channels + c, lanes); },
        [&](int r) {
          const int64_t at = r * channels + c;
          const Vec power = rate * sigmoid(load_some(a.decay_gate + at, lanes) + decay_bias);
          Vec input = sigmoid(load_some(a.in_gate + at, lanes) + in_bias) * load_some(a.x + at, lanes);
          if (a.rows.first_pos + r > 0) input *= square_root(one_less_exp(2.0f * power));
          state = fma(state, exp(power), input);
          store_some(a.out + at, state, lanes);
        },
        [&](int64_t block) { store_some(a.states + block * channels + c, state, lanes); });
  });
}

// Sums are kept relative to the largest exponent so far, so that none overflows.
void mean_scan(const MeanScanOfRows& a) {
  const int64_t channels = a.rows.channels;
  constexpr float kNothing = -1e38f;
  for_vectors(a.rows.end - a.rows.begin, [&](int64_t i, int lanes) {
    const int64_t c = a.rows.begin + i;
    const Vec decay = load_some(a.decay + c, lanes), first = load_some(a.first + c, lanes);
    Vec num{}, den{}, most = broadcast(kNothing);
    const auto at = [&](int64_t block, int n) { return a.states + (block * 3 + n) * channels + c; };
    for_state_rows(
        a.rows,
        [&](int64_t block) {
          num = load_some(at(block, 0), lanes);
          den = load_some(at(block, 1), lanes);
          most = load_some(at(block, 2), lanes);
        },
        [&](int r) {
          const Vec k = load_some(a.k + r * channels + c, lanes), v = load_some(a.v + r * channels + c, lanes);
          const Vec now = first + k, top = max(most, now);
          const Vec before = exp(most - top), own = exp(now - top);
          store_some(a.out + r * channels + c, fma(own, v, before * num) / fma(before, den, own), lanes);
          const Vec faded = most + decay, next = max(faded, k);
          const Vec kept = exp(faded - next), added = exp(k - next);
          num = fma(added, v, kept * num);
          den = fma(kept, den, added);
          most = next;
        },
        [&](int64_t block) {
          store_some(at(block, 0), num, lanes);
          store_some(at(block, 1), den, lanes);
          store_some(at(block, 2), most, lanes);
        });
  });
}

void selective_scan(const ScanArgs& a) {
  const int64_t channels = a.rows.channels;
  const int num_states = a.num_states;
  for_vectors(a.rows.end - a.rows.begin, [&](int64_t i, int lanes) {
    const int64_t c = a.rows.begin + i;
    Vec state[kMaxScanStates];
    for (int n = 0; n < num_states; ++n) state[n] = Vec{};
    const auto at = [&](int64_t block, int n) { return a.states + (block * num_states + n) * channels + c; };
    const Vec skip = load_some(a.d + c, lanes);
    for_state_rows(
        a.rows,
        [&](int64_t block) {
          for (int n = 0; n < num_states; ++n) state[n] = load_some(at(block, n), lanes);
        },
        [&](int r) {
          const Vec u = load_some(a.u + r * channels + c, lanes);
          const Vec dt = softplus(load_some(a.dt + r * channels + c, lanes)), input = dt * u;
          const float *const b = a.b + r * a.bc_stride, *const out = a.c + r * a.bc_stride;
          Vec y = skip * u;
          for (int n = 0; n < num_states; ++n) {
            const Vec decay = exp(dt * load_some(a.a + n * channels + c, lanes));
            state[n] = fma(state[n], decay, input * broadcast(b[n]));
            y = fma(state[n], broadcast(out[n]), y);
          }
          y *= silu(load_some(a.gate + r * a.gate_stride + c, lanes));
          store_some(a.out + r * channels + c, y, lanes);
        },
        [&](int64_t block) {
          for (int n = 0; n < num_states; ++n) store_some(at(block, n), state[n], lanes);
        });
  });
}

constexpr int kWide = 2;  // vectors side by side

// So many values as there are left, or the most that those vectors hold; lanes beyond are 0 and are not stored.
struct WideLanes {
  explicit WideLanes(int64_t left) {
    for (int w = 0; w < kWide; ++w, left -= kLanes) lanes[w] = static_cast<int>(left < 0 ? 0 : left > kLanes ? kLanes : left);
  }
  void load(const float* p, Vec (&to)[kWide]) const {
    for (int w = 0; w < kWide; ++w) to[w] = lanes[w] > 0 ? load_some(p + w * kLanes, lanes[w]) : Vec{};
  }
  void store(float* p, const Vec (&from)[kWide]) const {
    for (int w = 0; w < kWide; ++w)
      if (lanes[w] > 0) store_some(p + w * kLanes, from[w], lanes[w]);
  }
  int lanes[kWide];
};

// Some neighbouring values of the state stay in the cache while all rows pass; a lane is a value, and sums over
// keys run in their order.
void linear_scan(const LinearScanArgs& a) {
  const int keys = a.keys;
  const int64_t values = a.rows.channels;
  Vec state[kMaxScanKeys][kWide];
  for (int64_t c = a.rows.begin; c < a.rows.end; c += kWide * kLanes) {
    const WideLanes wide(a.rows.end - c);
    const auto at = [&](int64_t block, int n) { return a.states + block * a.block_floats + n * values + c; };
    for (int n = 0; n < keys; ++n)
      for (Vec& part : state[n]) part = Vec{};
    for_state_rows(
        a.rows,
        [&](int64_t block) {
          for (int n = 0; n < keys; ++n) wide.load(at(block, n), state[n]);
        },
        [&](int r) {
          const float *const q = a.q + r * a.qkv_stride, *const k = a.k + r * a.qkv_stride,
                      *const decays = a.decay + r * a.decay_stride;
          const Vec strength = broadcast(a.strength == nullptr ? 1.0f : a.strength[r * a.strength_stride]);
          Vec v[kWide], u[kWide], y[kWide] = {};
          wide.load(a.v + r * a.qkv_stride + c, v);
          if (a.has_delta_rule) {
            Vec m[kWide] = {};
            for (int n = 0; n < keys; ++n) {
              const Vec decay = broadcast(decays[a.decays_by_key ? n : 0]), key = broadcast(k[n]);
              for (int w = 0; w < kWide; ++w) {
                state[n][w] *= decay;
                m[w] = fma(state[n][w], key, m[w]);
              }
            }
            for (int w = 0; w < kWide; ++w) u[w] = strength * (v[w] - m[w]);
            for (int n = 0; n < keys; ++n) {
              const Vec key = broadcast(k[n]), query = broadcast(q[n]);
              for (int w = 0; w < kWide; ++w) {
                state[n][w] = fma(key, u[w], state[n][w]);
                y[w] = fma(state[n][w], query, y[w]);
              }
            }
          } else {
            for (int w = 0; w < kWide; ++w) u[w] = strength * v[w];
            for (int n = 0; n < keys; ++n) {
              const Vec decay = broadcast(decays[a.decays_by_key ? n : 0]), key = broadcast(k[n]),
                        query = broadcast(q[n]);
              for (int w = 0; w < kWide; ++w) {
                state[n][w] = fma(state[n][w], decay, key * u[w]);
                y[w] = fma(state[n][w], query, y[w]);
              }
            }
          }
          for (int w = 0; w < kWide; ++w) y[w] = fma(broadcast(a.skip), v[w], broadcast(a.scale) * y[w]);
          wide.store(a.out + r * a.out_stride + c, y);
        },
        [&](int64_t block) {
          for (int n = 0; n < keys; ++n) wide.store(at(block, n), state[n]);
        });
  }
}

// As linear_scan; what a row's keys become is formed before its values pass.
void replacing_scan(const ReplacingScanOfRows& a) {
  const int dim = a.dim;
  Vec state[kMaxScanKeys][kWide];
  float removed[kMaxScanKeys], returned[kMaxScanKeys], added[kMaxScanKeys];
  for (int64_t c = a.rows.begin; c < a.rows.end; c += kWide * kLanes) {
    const WideLanes wide(a.rows.end - c);
    const auto at = [&](int64_t block, int n) { return a.states + block * a.block_floats + n * int64_t{dim} + c; };
    for (int n = 0; n < dim; ++n)
      for (Vec& part : state[n]) part = Vec{};
    for_state_rows(
        a.rows,
        [&](int64_t block) {
          for (int n = 0; n < dim; ++n) wide.load(at(block, n), state[n]);
        },
        [&](int row) {
          const int64_t first = row * a.stride;
          const float *const r = a.r + first, *const decay = a.decay + first;
          Vec squares{}, products{};
          for_vectors(dim, [&](int64_t n, int count) {
            const Vec k = load_some(a.k + first + n, count), rate = load_some(a.rate + first + n, count);
            const Vec key = k * load_some(a.key_scale + n, count);
            const Vec add = k * fma(rate - 1.0f, load_some(a.key_rate + n, count), broadcast(1.0f));
            squares = fma(key, key, squares);
            products = fma(load_some(r + n, count) * add, load_some(a.bonus + n, count), products);
            store_some(removed + n, key, count);
            store_some(returned + n, key * rate, count);
            store_some(added + n, add, count);
          });
          const float length = inverse_sqrt(reduce_add(squares) + a.length_eps), bonus = reduce_add(products);
          Vec v[kWide], held[kWide] = {}, y[kWide] = {};
          wide.load(a.v + first + c, v);
          for (int n = 0; n < dim; ++n) {
            const Vec key = broadcast(removed[n]);
            for (int w = 0; w < kWide; ++w) held[w] = fma(state[n][w], key, held[w]);
          }
          for (int w = 0; w < kWide; ++w) held[w] *= broadcast(-length * length);
          for (int n = 0; n < dim; ++n) {
            const Vec kept = broadcast(decay[n]), back = broadcast(returned[n]), add = broadcast(added[n]), query = broadcast(r[n]);
            for (int w = 0; w < kWide; ++w) {
              state[n][w] = fma(state[n][w], kept, fma(back, held[w], add * v[w]));
              y[w] = fma(state[n][w], query, y[w]);
            }
          }
          wide.store(a.out + first + c, y);
          for (int w = 0; w < kWide; ++w) v[w] *= broadcast(bonus);
          wide.store(a.direct + first + c, v);
        },
        [&](int64_t block) {
          for (int n = 0; n < dim; ++n) wide.store(at(block, n), state[n]);
        });
  }
}

void decay_row(const DecayArgs& a) {
  for (int64_t begin = 0; begin < a.n; begin += a.share > 1 ? a.share : a.n) {
    for_vectors(a.share > 1 ? a.share : a.n, [&](int64_t j, int lanes) {
      const int64_t i = begin + j;
      Vec x = a.x_scale * load_some(a.x + i, lanes);
      if (a.bias != nullptr) x += load_some(a.bias + i, lanes);
      const Vec least = broadcast(a.least), most = broadcast(a.most);
      Vec step = max(softplus(x), least);
      step = step > most ? most : step;
      if (a.step != nullptr) store_some(a.step + i, step, lanes);
      const Vec rate = a.share > 1 ? broadcast(a.rate[begin / a.share]) : load_some(a.rate + i, lanes);
      const Vec logarithm = a.lower_bound != 0 ? a.lower_bound * sigmoid(-rate * x) : rate * step;
      store_some(a.decay + i, exp(logarithm), lanes);
    });
  }
}

}  // namespace
}  // namespace serval::cpu
