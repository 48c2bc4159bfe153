// One vector of floats, as wide as the instruction set this file is compiled for, and the few operations that
// the hot kernels need beyond + - * /, which the compiler provides for vector types. Included by
// hot_kernels.cc alone: everything has internal linkage, so that no copy of it can serve another instruction
// set.
//
// fma() is fused wherever the instruction set has it; the generic build rounds twice. Both are the same
// operation for every row, which is all that law 1 asks.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace serval::cpu {
namespace {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

using Vec = float __attribute__((vector_size(kLanes * 4)));
using IntVec = int32_t __attribute__((vector_size(kLanes * 4)));

inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, Vec v) {
  std::memcpy(p, &v, sizeof v);
}
inline IntVec load_ints(const void* p) {
  IntVec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
// One load with a broadcast where x is in memory. (Vec{} + x is not that: it makes 0 of -0, so a compiler
// must add and then shuffle, on the very ports that multiply.)
inline Vec broadcast(float x) {
#if defined(__AVX512F__)
  return _mm512_set1_ps(x);
#elif defined(__AVX2__)
  return _mm256_set1_ps(x);
#else
  return Vec{x, x, x, x};
#endif
}
inline Vec as_floats(IntVec v) {
  return reinterpret_cast<Vec>(v);
}
inline IntVec as_ints(Vec v) {
  return reinterpret_cast<IntVec>(v);
}

// The first n lanes, 0 < n < kLanes; the others read as zero and are not touched in memory.
inline Vec load_part(const float* p, int n) {
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
#else
  Vec v{};
  std::memcpy(&v, p, static_cast<size_t>(n) * 4);
  return v;
#endif
}
inline void store_part(float* p, Vec v, int n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v);
#else
  std::memcpy(p, &v, static_cast<size_t>(n) * 4);
#endif
}
inline IntVec load_ints_part(const void* p, int n) {
  return as_ints(load_part(static_cast<const float*>(p), n));
}

inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

// The larger one; b where either is NaN.
inline Vec max(Vec a, Vec b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

// 1 / sqrt(x), correctly rounded in both steps.
inline float inverse_sqrt(float x) {
  return 1.0f / __builtin_sqrtf(x);
}

// Folding halves: the same tree for every length of input.
inline float reduce_add(Vec v) {
  float lanes[kLanes];
  store(lanes, v);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}
inline float reduce_max(Vec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps(v);
#else
  float lanes[kLanes];
  store(lanes, v);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
  return lanes[0];
#endif
}

// Two bf16 values share a 32-bit lane: the even one in the low half, the odd one in the high half. Widening
// is a shift or a mask.
inline Vec even_of(IntVec pairs) {
  return as_floats(pairs << 16);
}
inline Vec odd_of(IntVec pairs) {
  return as_floats(pairs & static_cast<int32_t>(0xffff0000));
}

// kLanes halves (IEEE binary16) as floats, exact.
inline Vec load_halves(const uint16_t* p) {
#if defined(__AVX512F__)
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__)
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  // In the high half of each lane: sign, exponent and mantissa in order.
#if defined(__SSE2__)
  const auto high = reinterpret_cast<IntVec>(
      _mm_unpacklo_epi16(_mm_setzero_si128(), _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
  IntVec high;
  for (int i = 0; i < kLanes; ++i) high[i] = static_cast<int32_t>(uint32_t{p[i]} << 16);
#endif
  // The magnitude in a float's place, times the difference of the exponent biases: subnormal halves come out
  // right too. Infinities and NaNs get back their all-ones exponent.
  const IntVec magnitude = (high & 0x7fffffff) >> 3;
  const IntVec special = (magnitude > 0x0f7fffff) & 0x7f800000;
  return as_floats(as_ints(as_floats(magnitude) * 0x1p112f) | special |
                   (high & static_cast<int32_t>(0x80000000)));
#endif
}

// kLanes signed bytes as floats.
inline Vec load_bytes(const char* p) {
#if defined(__AVX512F__)
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__)
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#elif defined(__SSE2__)
  // Each byte into the top of its lane, and down again with its sign.
  const __m128i bytes = _mm_loadu_si32(p), words = _mm_unpacklo_epi8(bytes, bytes);
  return _mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpacklo_epi16(words, words), 24));
#else
  Vec v;
  for (int i = 0; i < kLanes; ++i) v[i] = static_cast<signed char>(p[i]);
  return v;
#endif
}

inline Vec to_floats(IntVec v) {
  return __builtin_convertvector(v, Vec);
}

// kLanes bytes of E4M3 (kernels/float_bits.h) as floats; the NaNs come out as 480.
inline Vec load_fp8(const char* p) {
#if defined(__AVX512F__)
  const auto bits = (IntVec)_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(__AVX2__)
  const auto bits = (IntVec)_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#else
  IntVec bits;
  for (int i = 0; i < kLanes; ++i) bits[i] = static_cast<signed char>(p[i]);
#endif
  const IntVec magnitude = bits & 0x7f;
  const IntVec normal = (magnitude << 20) + 0x3c000000, small = as_ints(to_floats(magnitude) * 0x1p-9f);
  return as_floats((magnitude < 8 ? small : normal) | (bits & static_cast<int32_t>(0x80000000)));
}

// Of each lane the number of E3M2 whose sign is bit `at` and whose magnitude the five bits above.
inline Vec fp6_in(IntVec bits, int at) {
#if defined(__AVX512F__)  // a table of 32 is two registers
  alignas(64) static constexpr float kNumbers[] = {0, 0.0625f, 0.125f, 0.1875f, 0.25f, 0.3125f, 0.375f, 0.4375f, 0.5f, 0.625f, 0.75f,
                                                   0.875f, 1, 1.25f, 1.5f, 1.75f, 2, 2.5f, 3, 3.5f, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28};
  const __m512 magnitude = _mm512_permutex2var_ps(_mm512_load_ps(kNumbers), (__m512i)(bits >> (at + 1)), _mm512_load_ps(kNumbers + 16));
  return (Vec)_mm512_ternarylogic_epi32((__m512i)(bits << (31 - at)), _mm512_set1_epi32(INT32_MIN), (__m512i)magnitude, 0xea);  // a & b | c
#else
  // 2^(e - 3) (1 + m / 4), of which a subnormal is twice as much less a quarter.
  const IntVec magnitude = (at < 20 ? bits << (20 - at) : bits >> (at - 20)) & 0x03e00000;
  const Vec normal = as_floats(magnitude + 0x3e000000);
  const Vec number = normal - max(0.25f - normal, Vec{});
  return as_floats(as_ints(number) | ((bits << (31 - at)) & INT32_MIN));
#endif
}

// kLanes bytes, 0..255.
inline IntVec load_small(const char* p) {
#if defined(__AVX512F__)
  return (IntVec)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(__AVX2__)
  return (IntVec)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#elif defined(__SSE2__)
  const __m128i zero = _mm_setzero_si128();
  return (IntVec)_mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_loadu_si32(p), zero), zero);
#else
  IntVec v;
  for (int i = 0; i < kLanes; ++i) v[i] = static_cast<unsigned char>(p[i]);
  return v;
#endif
}

// What kLoad makes of the first n bytes, 0 < n < kLanes; the others read as zero and are not touched in memory.
template <auto kLoad>
inline auto load_bytes_part(const char* p, int n) {
  char bytes[kLanes] = {};
  std::memcpy(bytes, p, static_cast<size_t>(n));
  return kLoad(bytes);
}

// Of 16 numbers those that the low 4 bits of each lane say.
inline Vec look_up(const float* table, IntVec indices) {
#if defined(__AVX512F__)
  return _mm512_permutexvar_ps((__m512i)indices, _mm512_loadu_ps(table));
#elif defined(__AVX2__)
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)indices),
               high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), (__m256i)indices);
  return _mm256_blendv_ps(low, high, (__m256)(indices << 28));
#else
  Vec v;
  for (int i = 0; i < kLanes; ++i) v[i] = table[indices[i] & 15];
  return v;
#endif
}

// e^x within 2 units in the last place on [-87.3, 88]: 0 below, e^88 above, NaN stays NaN; exactly 1 at 0.
// x = n ln 2 + r with ln 2 in two parts (Cody and Waite 1980); on |r| <= ln(2)/2 a polynomial through
// Chebyshev nodes, 1 + r + r^2 P4(r), relative error 1.1e-8; n enters the exponent.
inline Vec exp(Vec x) {
  constexpr float kLow = -87.3f, kHigh = 88.0f;
  constexpr float kToInteger = 0x1.8p23f;  // adding it rounds to an integer and leaves it in the low mantissa
  const Vec low = broadcast(kLow);
  const Vec clamped = x > kHigh ? broadcast(kHigh) : max(low, x);
  const Vec shifted = fma(clamped, broadcast(0x1.715476p0f), broadcast(kToInteger));
  const Vec n = shifted - kToInteger;
  Vec r = fma(n, broadcast(-0x1.63p-1f), clamped);  // nine bits: the product is exact
  r = fma(n, broadcast(0x1.bd0106p-13f), r);
  Vec p = broadcast(0.0013926184f);
  p = fma(p, r, broadcast(0.00836317893f));
  p = fma(p, r, broadcast(0.0416665561f));
  p = fma(p, r, broadcast(0.166665763f));
  p = fma(p, r, broadcast(0.5f));
  p = fma(p * r, r, r) + 1.0f;
  // Unsigned, for a NaN's bits may overflow here; it is replaced below.
  using Bits = uint32_t __attribute__((vector_size(kLanes * 4)));
  const Vec scaled =
      reinterpret_cast<Vec>(reinterpret_cast<Bits>(p) + (reinterpret_cast<Bits>(shifted) << 23));
  return x < kLow ? Vec{} : (x == x ? scaled : x);
}

}  // namespace
}  // namespace serval::cpu
