// Vectors of codes and what multiplies them, of the set of instructions that this file is compiled for: bytes by bytes,
// and 4 bits by bytes, with 32-bit sums; and what both kinds of panels do alike. Included by hot_dots.cc and hot_nibbles.h
// alone: everything has internal linkage, as in simd.h.
#pragma once

#include <limits>
#include <utility>

#include "kernels/cpu/dot_table.h"
#include "kernels/cpu/simd.h"

namespace serval::cpu {
namespace {

constexpr int kVecs = kPanel / kLanes;

// The weights of four neighbours of k, one output a lane, and a row's codes of those k in every lane; dot() adds their
// products to each lane. Where there is no instruction for it, bytes are widened to pairs of 16 bits: k 0 and 2, 1 and 3.
#if defined(__AVX512VNNI__) || (defined(__AVXVNNI__) && !defined(__AVX512F__))
#define SERVAL_HAS_VNNI 1
#endif

#if defined(SERVAL_HAS_VNNI)
struct Weights {
  IntVec bytes;
};
struct Codes {
  IntVec bytes;
};
inline Weights weights_at(const char* p) {
  return {load_ints(p)};
}
inline Codes codes_of(int32_t four) {
  return {IntVec{} + four};
}
inline IntVec dot(IntVec sums, const Weights& w, const Codes& x) {
#if defined(__AVX512VNNI__)
  return (IntVec)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)x.bytes, (__m512i)w.bytes);
#else
  return (IntVec)_mm256_dpbusd_avx_epi32((__m256i)sums, (__m256i)x.bytes, (__m256i)w.bytes);
#endif
}
#elif defined(__SSE2__)
using Words = int16_t __attribute__((vector_size(kLanes * 4)));
struct Weights {
  Words even, odd;
};
struct Codes {
  IntVec even, odd;
};
inline Weights weights_at(const char* p) {
  const auto words = reinterpret_cast<Words>(load_ints(p));
  return {(words << 8) >> 8, words >> 8};
}
inline Codes codes_of(int32_t four) {
  return {IntVec{} + (four & 0x00ff00ff), IntVec{} + (four >> 8 & 0x00ff00ff)};
}
inline IntVec multiply_pairs(Words a, IntVec b) {
#if defined(__AVX512F__)
  return (IntVec)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (IntVec)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
  return (IntVec)_mm_madd_epi16((__m128i)a, (__m128i)b);
#endif
}
inline IntVec dot(IntVec sums, const Weights& w, const Codes& x) {
  return sums + (multiply_pairs(w.even, x.even) + multiply_pairs(w.odd, x.odd));
}
#else
struct Weights {
  IntVec bytes[4];
};
struct Codes {
  IntVec bytes[4];
};
inline Weights weights_at(const char* p) {
  const IntVec four = load_ints(p);
  return {{(four << 24) >> 24, (four << 16) >> 24, (four << 8) >> 24, four >> 24}};
}
inline Codes codes_of(int32_t four) {
  return {{IntVec{} + (four & 255), IntVec{} + (four >> 8 & 255), IntVec{} + (four >> 16 & 255), IntVec{} + (four >> 24 & 255)}};
}
inline IntVec dot(IntVec sums, const Weights& w, const Codes& x) {
  return sums + (w.bytes[0] * x.bytes[0] + w.bytes[1] * x.bytes[1]) + (w.bytes[2] * x.bytes[2] + w.bytes[3] * x.bytes[3]);
}
#endif

// The same of weights of 4 bits, 0..15, of which a lane has eight neighbours of k, four in each half, and codes with a sign.
// add_products() adds to partial sums, which take kRun k between begin_run() and end_run(), and end_run() to whole ones.
#if defined(__AVX2__)
struct Nibbles {
  IntVec bytes;
};
struct SignedCodes {
  IntVec bytes;
};
inline Nibbles nibbles_at(const char* p, int half) {
  return {(load_ints(p) >> (4 * half)) & 0x0f0f0f0f};
}
inline SignedCodes signed_codes_of(int32_t four) {
  return {IntVec{} + four};
}
#else
using Nibbles = Weights;
using SignedCodes = Codes;
inline Nibbles nibbles_at(const char* p, int half) {
  const IntVec both = load_ints(p) >> (4 * half);
#if defined(__SSE2__)
  return {reinterpret_cast<Words>(both & 0x000f000f), reinterpret_cast<Words>((both >> 8) & 0x000f000f)};
#else
  const auto at = [&](int shift) { return (both >> shift) & 15; };
  return {{at(0), at(8), at(16), at(24)}};
#endif
}
inline SignedCodes signed_codes_of(int32_t four) {
#if defined(__SSE2__)
  const auto words = reinterpret_cast<Words>(IntVec{} + four);
  return {reinterpret_cast<IntVec>((words << 8) >> 8), reinterpret_cast<IntVec>(words >> 8)};
#else
  const auto at = [&](int shift) { return IntVec{} + static_cast<int8_t>(four >> shift); };
  return {{at(0), at(8), at(16), at(24)}};
#endif
}
#endif

#if defined(__AVX2__) && !defined(SERVAL_HAS_VNNI)
using PartialSums = Words;
// Two products of 15 * 127 to a sum of 16 bits, for eight times four k.
constexpr int64_t kRun = 32;
inline PartialSums begin_run(IntVec) {
  return PartialSums{};
}
inline PartialSums add_products(PartialSums sums, const Nibbles& w, const SignedCodes& x) {
#if defined(__AVX512F__)
  return sums + (Words)_mm512_maddubs_epi16((__m512i)w.bytes, (__m512i)x.bytes);
#else
  return sums + (Words)_mm256_maddubs_epi16((__m256i)w.bytes, (__m256i)x.bytes);
#endif
}
inline IntVec end_run(IntVec sums, PartialSums run) {
  return sums + multiply_pairs(run, IntVec{} + 0x00010001);
}
#else
using PartialSums = IntVec;
constexpr int64_t kRun = std::numeric_limits<int64_t>::max();
inline PartialSums begin_run(IntVec sums) {
  return sums;
}
inline PartialSums add_products(PartialSums sums, const Nibbles& w, const SignedCodes& x) {
#if defined(SERVAL_HAS_VNNI)
  return dot(sums, Weights{x.bytes}, Codes{w.bytes});  // the factor without a sign is the weight here
#else
  return dot(sums, w, x);
#endif
}
inline IntVec end_run(IntVec, PartialSums run) {
  return run;
}
#endif

// Stores rows from `row` on: what result(m, v, bias) says of the row's vector v of outputs.
template <class Result>
void store_rows(const DotArgs& args, int row, int num_rows, const Result& result) {
  alignas(64) float bias[kPanel] = {}, edge[kPanel];
  if (args.bias != nullptr) std::memcpy(bias, args.bias, args.valid * sizeof(float));
  for (int m = 0; m < num_rows; ++m) {
    float* const out = args.out + (row + m) * args.out_stride;
    float* const to = args.valid == kPanel ? out : edge;
    for (int v = 0; v < kVecs; ++v) store(to + v * kLanes, result(m, v, load(bias + v * kLanes)));
    if (to == edge) std::memcpy(out, edge, args.valid * sizeof(float));
  }
}

// What a tile fetches ahead at each step: two lines from `at` on, which then moves.
struct Prefetch {
  const char* at;
  int64_t bytes;
};

// Of 1..most rows: makes sums [rows][kPanel] of those from `row` on. Each is a function of its own, so that the compiler shares
// out the registers of each apart.
template <class Sum, int most>
struct Tiles {
  void (*of[most])(const DotArgs& args, int row, Prefetch ahead, Sum* sums);
};

// Runs tiles of nearly equal height over all rows of a panel whose steps take 4 * kPanel bytes, and finish(first row, rows, sums) after
// each. Where there are no more than num_alone, the first tile fetches a little ahead of itself; more fetch the next panel, each its share.
template <class Sum, int most, class Finish>
void run_tiles(const DotArgs& args, const Tiles<Sum, most>& tiles, int64_t steps, int num_alone, const Finish& finish) {
  constexpr int64_t kStepBytes = 4 * kPanel, kAhead = 4096;
  alignas(64) Sum sums[most * kPanel];
  const auto* const weights = static_cast<const char*>(args.weights);
  const int num_tiles = (args.num_rows + most - 1) / most;
  const bool is_shared = num_tiles > num_alone;
  Prefetch ahead = is_shared ? Prefetch{weights + steps * kStepBytes, kStepBytes / num_tiles} : Prefetch{weights + kAhead, kStepBytes};
  for (int t = 0; t < num_tiles; ++t) {
    const int row = t * args.num_rows / num_tiles, rows = (t + 1) * args.num_rows / num_tiles - row;
    tiles.of[rows - 1](args, row, ahead, sums);
    finish(row, rows, sums);
    ahead = is_shared ? Prefetch{ahead.at + steps * ahead.bytes, ahead.bytes} : Prefetch{weights, 0};
  }
}

}  // namespace
}  // namespace serval::cpu
