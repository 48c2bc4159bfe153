// The 16-bit float formats as bits, one value at a time: for packing, caching and tests. The hot kernels
// widen vectors by themselves.
#pragma once

#include <bit>
#include <cstdint>

namespace serval {

inline float bf16_to_float(uint16_t bits) {
  return std::bit_cast<float>(uint32_t{bits} << 16);
}

// Round to nearest, ties to even; a NaN stays a NaN.
inline uint16_t float_to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// IEEE binary16, exact: the difference of the exponent biases is a power of two, which makes subnormals come
// out right.
inline float half_to_float(uint16_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16;
  const uint32_t magnitude = (bits & 0x7fffu) << 13;
  if ((bits & 0x7c00) == 0x7c00) return std::bit_cast<float>(magnitude | 0x7f800000 | sign);
  return std::bit_cast<float>(std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f) | sign);
}

// Round to nearest, ties to even; from 65520 on infinity; a NaN stays a NaN.
inline uint16_t float_to_half(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    // Below 2^-14 the result counts units of 2^-24; added to one half, the sum's own rounding leaves just
    // those.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) & 0x7ffu));
  }
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
  return static_cast<uint16_t>(sign | (rounded - 0x38000000u) >> 13);
}

// E4M3 without infinities (Micikevicius et al. 2022): 0x7f is the one NaN of each sign.
inline constexpr float kLargestFp8 = 448;
inline float fp8_to_float(uint8_t bits) {
  const uint32_t sign = (bits & 0x80u) << 24, magnitude = bits & 0x7fu;
  if (magnitude == 0x7f) return std::bit_cast<float>(sign | 0x7fc00000u);
  const float value = std::bit_cast<float>(magnitude << 20) * 0x1p120f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
}

// The bits of a magnitude as a float with so many bits of mantissa and that least normal number, f32 bits both: to the nearest,
// ties to even. What is too large for the format is for the caller to look at.
template <int kMantissa, uint32_t kLeastNormal>
uint32_t round_magnitude(uint32_t magnitude) {
  constexpr int kDropped = 23 - kMantissa;
  if (magnitude < kLeastNormal) {
    // The result counts units of the least subnormal, which the sum with 2^23 of them rounds to.
    constexpr uint32_t kUnits = kLeastNormal + (uint32_t{kDropped} << 23);
    const float shifted = std::bit_cast<float>(magnitude) + std::bit_cast<float>(kUnits);
    return std::bit_cast<uint32_t>(shifted) & ((2u << kMantissa) - 1);
  }
  const uint32_t rounded = magnitude + ((1u << (kDropped - 1)) - 1) + (magnitude >> kDropped & 1u);
  return (rounded - (kLeastNormal - (1u << 23))) >> kDropped;
}

// Round to nearest, ties to even; what is larger becomes the largest, a NaN stays a NaN.
inline uint8_t float_to_fp8(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 24 & 0x80u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint8_t>(sign | 0x7fu);
  if (magnitude > 0x43e00000u) return static_cast<uint8_t>(sign | 0x7eu);
  return static_cast<uint8_t>(sign | round_magnitude<3, 0x3c800000u>(magnitude));  // 2^-6
}

// E3M2, which has neither infinities nor NaN (Xia et al. 2024; OCP Microscaling Formats 1.0, section 5.3.2), in the low 6 bits.
inline constexpr float kLargestFp6 = 28;
inline float fp6_to_float(uint8_t bits) {
  const float value = std::bit_cast<float>((bits & 0x1fu) << 21) * 0x1p124f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | (bits & 0x20u) << 26);
}

// Round to nearest, ties to even; what is larger, and a NaN, becomes the largest.
inline uint8_t float_to_fp6(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 26 & 0x20u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x41e00000u) return static_cast<uint8_t>(sign | 0x1fu);
  return static_cast<uint8_t>(sign | round_magnitude<2, 0x3e800000u>(magnitude));  // 2^-2
}

}  // namespace serval
