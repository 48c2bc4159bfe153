// Kernels of rows that are keys and values at once, and of what they are compressed to. A lane is a number of a row, and a
// row's keys come in their order: what stands beside it changes no bit. Included by hot_kernels.cc alone.
#pragma once

#include "kernels/cpu/hot_rows.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/simd.h"

namespace serval::cpu {
namespace {

// dots [heads] of a key with each head's query.
inline void dot_heads(const float* q, int heads, int dim, const float* key, float* dots) {
  Vec sums[kRowHeads] = {};
  for_vectors(dim, [&](int64_t i, int lanes) {
    const Vec k = load_some(key + i, lanes);
    for (int h = 0; h < heads; ++h) sums[h] = fma(load_some(q + h * dim + i, lanes), k, sums[h]);
  });
  for (int h = 0; h < heads; ++h) dots[h] = reduce_add(sums[h]);
}

void attend_rows(const AttendRowsOf& a) {
  constexpr float kLeast = -3e38f;
  float scores[kRowHeads][kRowTile];
  for (int r = 0; r < a.num_keys; ++r) {
    float dots[kRowHeads];
    dot_heads(a.q, a.heads, a.dim, a.keys[r], dots);
    for (int h = 0; h < a.heads; ++h) scores[h][r] = dots[h] * a.scale;
  }
  for (int h = 0; h < a.heads; ++h) {
    float* const of_head = scores[h];
    for (int r = a.num_keys; r < kRowTile; ++r) of_head[r] = kLeast;
    Vec highest = broadcast(a.most[h]);
    for (int r = 0; r < kRowTile; r += kLanes) highest = max(load(of_head + r), highest);
    const float most = reduce_max(highest);
    Vec sums{};
    for (int r = 0; r < kRowTile; r += kLanes) {
      const Vec weights = exp(load(of_head + r) - most);
      store(of_head + r, weights);
      sums += weights;
    }
    float faded[kLanes];
    store(faded, exp(broadcast(a.most[h] - most)));
    a.sum[h] = a.sum[h] * faded[0] + reduce_add(sums);
    a.most[h] = most;
    float* const out = a.out + int64_t{h} * a.dim;
    for_vectors(a.dim, [&](int64_t i, int lanes) {
      Vec sum = load_some(out + i, lanes) * faded[0];
      for (int r = 0; r < a.num_keys; ++r) sum = fma(broadcast(of_head[r]), load_some(a.keys[r] + i, lanes), sum);
      store_some(out + i, sum, lanes);
    });
  }
}

void index_rows(const IndexRowsOf& a) {
  for (int r = 0; r < a.num_keys; ++r) {
    float sum = 0;
    for (int first = 0; first < a.heads; first += kRowHeads) {
      const int heads = a.heads - first < kRowHeads ? a.heads - first : kRowHeads;
      float dots[kRowHeads];
      dot_heads(a.q + int64_t{first} * a.dim, heads, a.dim, a.keys[r], dots);
      for (int h = 0; h < heads; ++h) sum += dots[h] < 0 ? 0.0f : a.weights[first + h] * dots[h];
    }
    a.out[r] = sum;
  }
}

void compress_rows(const CompressRowsOf& a) {
  const int64_t width = a.overlaps ? 2 * a.dim : a.dim;
  const int own = a.last + 1 - a.span, first = a.overlaps && own > 0 ? own - a.span : own;
  for_vectors(a.dim, [&](int64_t i, int lanes) {
    // Calls visit(what is to be added, its weight before the softmax).
    const auto for_positions = [&](const auto& visit) {
      for (int p = first; p <= a.last; ++p) {
        const float* const row =
            a.rows + (int64_t{a.blocks[p / a.block_size]} * a.block_size + p % a.block_size) * a.row_floats;
        const int64_t at = (p >= own ? width - a.dim : 0) + i;
        visit(load_some(row + at, lanes), load_some(row + width + at, lanes) + load_some(a.bias + p % a.span * width + at, lanes));
      }
    };
    Vec most = broadcast(-3e38f), total{}, sum{};
    for_positions([&](Vec, Vec weight) { most = max(weight, most); });
    for_positions([&](Vec value, Vec weight) {
      const Vec share = exp(weight - most);
      total += share;
      sum = fma(share, value, sum);
    });
    store_some(a.out + i, sum / total, lanes);
  });
}

}  // namespace
}  // namespace serval::cpu
