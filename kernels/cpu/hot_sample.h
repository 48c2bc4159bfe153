// Passes over a row of logits. Included by hot_kernels.cc alone.
//
// The same bits with every instruction set: nothing is fused, and sums go round sixteen lanes whatever a
// vector's width. So a seed draws the same token from the same logits everywhere.
#pragma once

#include "kernels/cpu/hot_rows.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/simd.h"

namespace serval::cpu {
namespace {

constexpr int kSumLanes = 16;  // the widest vector's

// e^x for x <= 0, within 2 units in the last place, exactly 1 at 0: x = n ln 2 + r with ln 2 in two parts
// (Cody and Waite 1980), the Taylor polynomial of degree 7 on |r| <= ln(2)/2 (error below r^8/8! = 6e-9), and
// n added to the exponent. Rounded after each operation, as exp_rounded() of the CUDA sampler is.
Vec exp_rounded(Vec x) {
  constexpr float kRoundToInteger = 0x1.8p23f;
  constexpr float kLog2E = 0x1.715476p0f;
  constexpr float kLn2High = 0x1.63p-1f;  // nine bits: n times it is exact
  constexpr float kLn2Low = -0x1.bd0106p-13f;
  using Bits = uint32_t __attribute__((vector_size(kLanes * 4)));  // far below the range they wrap round
  const Vec shifted = x * kLog2E + kRoundToInteger;
  const Vec n = shifted - kRoundToInteger;
  const Vec r = (x - n * kLn2High) - n * kLn2Low;
  Vec y = r * (1.0f / 5040) + 1.0f / 720;
  y = y * r + 1.0f / 120;
  y = y * r + 1.0f / 24;
  y = y * r + 1.0f / 6;
  y = y * r + 0.5f;
  y = y * r + 1.0f;
  y = y * r + 1.0f;
  const Vec scaled =
      reinterpret_cast<Vec>(reinterpret_cast<Bits>(y) + (reinterpret_cast<Bits>(shifted) << 23));
  return x >= kExpUnderflow ? scaled : Vec{};
}

// p[i] = exp((block[i] - max) * scale). The subtraction comes first: it is exact where p is not negligible.
void exp_block(const float* block, float max, float scale, float* p) {
  for (int i = 0; i < kLogitBlock; i += kLanes) store(p + i, exp_rounded((load(block + i) - max) * scale));
}

// Calls visit(b, block) with block b of the row, the last one padded with -inf, when wanted(b).
template <class Wanted, class Visit>
void for_logit_blocks(const float* row, int64_t vocab, int64_t begin, int64_t end, const Wanted& wanted,
                      const Visit& visit) {
  const int64_t full = vocab / kLogitBlock;
  for (int64_t b = begin; b < end && b < full; ++b)
    if (wanted(b)) visit(b, row + b * kLogitBlock);
  if (full < end && vocab % kLogitBlock != 0 && wanted(full)) {
    float padded[kLogitBlock];
    for (int i = 0; i < kLogitBlock; ++i)
      padded[i] = i < vocab % kLogitBlock ? row[full * kLogitBlock + i] : -__builtin_inff();
    visit(full, padded);
  }
}
int64_t num_logit_blocks(int64_t vocab) {
  return (vocab + kLogitBlock - 1) / kLogitBlock;
}

void scan_logits(LogitRow& row) {
  row.max = -__builtin_inff();
  row.max_block = 0;
  IntVec not_a_number{};
  for_logit_blocks(
      row.logits, row.vocab, 0, num_logit_blocks(row.vocab), [](int64_t) { return true; },
      [&](int64_t b, const float* block) {
        Vec largest = load(block);
        not_a_number |= largest != largest;
        for (int i = kLanes; i < kLogitBlock; i += kLanes) {
          const Vec v = load(block + i);
          not_a_number |= v != v;
          largest = max(largest, v);
        }
        const float m = reduce_max(largest);
        row.block_max[b] = m;
        if (m > row.max) {
          row.max = m;
          row.max_block = b;
        }
      });
  row.has_nan = false;
  for (int i = 0; i < kLanes; ++i) row.has_nan |= not_a_number[i] != 0;
}

// Floats inside a block, doubles across blocks, in the order of the vocabulary.
double sum_of_exp(const LogitRow& row, float scale) {
  double total[kSumLanes] = {};
  for_logit_blocks(
      row.logits, row.vocab, 0, num_logit_blocks(row.vocab),
      [&](int64_t b) { return (row.block_max[b] - row.max) * scale >= kExpUnderflow; },
      [&](int64_t, const float* block) {
        Vec sums[kSumLanes / kLanes] = {};
        for (int i = 0; i < kLogitBlock; i += kSumLanes)
          for (int j = 0; j < kSumLanes / kLanes; ++j)
            sums[j] += exp_rounded((load(block + i + j * kLanes) - row.max) * scale);
        float lanes[kSumLanes];
        for (int j = 0; j < kSumLanes / kLanes; ++j) store(lanes + j * kLanes, sums[j]);
        for (int j = 0; j < kSumLanes; ++j) total[j] += static_cast<double>(lanes[j]);
      });
  for (int width = kSumLanes / 2; width > 0; width /= 2)
    for (int j = 0; j < width; ++j) total[j] += total[j + width];
  return total[0];
}

int64_t probable_tokens(const LogitRow& row, float scale, float floor, float least, uint64_t* found) {
  int64_t count = 0;
  for_logit_blocks(
      row.logits, row.vocab, 0, num_logit_blocks(row.vocab),
      [&](int64_t b) { return (row.block_max[b] - row.max) * scale >= floor; },
      [&](int64_t b, const float* block) {
        float p[kLogitBlock];
        exp_block(block, row.max, scale, p);
        const auto first = static_cast<uint32_t>(b * kLogitBlock);
        for (uint32_t i = 0; i < kLogitBlock; ++i) {
          uint32_t bits;
          std::memcpy(&bits, p + i, sizeof bits);
          found[count] = uint64_t{bits} << 32 | (first + i);
          count += static_cast<int64_t>(p[i] >= least) & static_cast<int64_t>(p[i] > 0);
        }
      });
  return count;
}

// mix64() of kernels/gumbel.h, which this file must not share: the linker could keep this copy for everybody.
uint64_t mix_bits(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

int64_t race_entrants(const LogitRow& row, const RaceArgs& args, uint64_t* found) {
  int64_t count = 0;
  for_logit_blocks(
      row.logits, row.vocab, args.begin_block, args.end_block,
      [&](int64_t b) { return (row.block_max[b] - row.max) * args.scale >= args.floor; },
      [&](int64_t b, const float* block) {
        float p[kLogitBlock];
        exp_block(block, row.max, args.scale, p);
        const auto first = static_cast<uint64_t>(b * kLogitBlock);
        int32_t noise[kLogitBlock];
        for (uint64_t i = 0; i < kLogitBlock; ++i)
          noise[i] =
              static_cast<int32_t>(mix_bits(args.stream + (first + i + 1) * 0x9e3779b97f4a7c15ull) >> 40);
        int32_t enters[kLogitBlock];
        int32_t any = 0;
        for (int i = 0; i < kLogitBlock; ++i) {
          enters[i] = static_cast<int32_t>(static_cast<float>(noise[i]) * 0x1p-24f <= args.limit * p[i]) &
                      static_cast<int32_t>(p[i] > 0) & static_cast<int32_t>(p[i] >= args.min_p);
          any |= enters[i];
        }
        if (any == 0) return;
        for (uint64_t i = 0; i < kLogitBlock; ++i) {
          if (enters[i] == 0) continue;
          uint32_t bits;
          std::memcpy(&bits, p + i, sizeof bits);
          found[count++] = uint64_t{bits} << 32 | (first + i);
        }
      });
  return count;
}

int64_t count_larger(const LogitRow& row, float value) {
  int64_t count = 0;
  for_logit_blocks(
      row.logits, row.vocab, 0, num_logit_blocks(row.vocab),
      [&](int64_t b) { return row.block_max[b] > value; },
      [&](int64_t, const float* block) {
        IntVec larger{};
        for (int i = 0; i < kLogitBlock; i += kLanes) larger -= load(block + i) > value;
        for (int i = 0; i < kLanes; ++i) count += larger[i];
      });
  return count;
}

void penalise_tokens(float* logits, const uint32_t* counts, int64_t n, const Penalties& penalties) {
  for_vectors(n, [&](int64_t i, int lanes) {
    const IntVec count = lanes == kLanes ? load_ints(counts + i) : load_ints_part(counts + i, lanes);
    const IntVec in_output = count & 0x7fffffff;
    const Vec logit = load_some(logits + i, lanes);
    Vec changed = logit > 0 ? logit / penalties.repetition : logit * penalties.repetition;
    const Vec taken = __builtin_convertvector(in_output, Vec) * penalties.frequency + penalties.presence;
    changed = in_output > 0 ? changed - taken : changed;
    store_some(logits + i, count != 0 ? changed : logit, lanes);
  });
}

}  // namespace
}  // namespace serval::cpu
