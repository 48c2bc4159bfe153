// The 16- and 8-bit floating-point numbers of weights, activations and KV, as bits with a type. Conversions
// that the hardware does are in ptx.h; what is here is exact bit arithmetic, the same on host and device.
#pragma once

#include <cstdint>

#include "kernels/float_bits.h"
#include "kernels/host_device.h"

namespace serval::cuda {

struct Bf16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};
// E4M3 of Micikevicius et al. 2022 (FP8 formats for deep learning), section 3: 4 exponent bits, bias 7, no
// infinity, 0x7f and 0xff are NaN, largest 448.
struct Fp8 {
  uint8_t bits;
};

inline constexpr float kFp8Max = 448.0f;

union FloatBits {
  float value;
  uint32_t bits;
};
SERVAL_HOST_DEVICE uint32_t bits_of(float value) {
  FloatBits u;
  u.value = value;
  return u.bits;
}
SERVAL_HOST_DEVICE float float_of(uint32_t bits) {
  FloatBits u;
  u.bits = bits;
  return u.value;
}

// Nearest, ties to even; larger than 448 becomes 448 (a stored key must stay finite), NaN stays NaN.
SERVAL_HOST_DEVICE Fp8 fp8_from_float(float value) {
  const uint32_t bits = bits_of(value);
  const auto sign = static_cast<uint8_t>(bits >> 24 & 0x80u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<uint8_t>(sign | 0x7fu)};
  if (magnitude >= 0x43e00000u) return {static_cast<uint8_t>(sign | 0x7eu)};  // 448 and above
  if (magnitude < 0x3c800000u) {
    // Below 2^-6, the smallest normal number: multiples of 2^-9. Adding 2^14 leaves exactly those bits of a
    // float.
    const uint32_t rounded = bits_of(float_of(magnitude) + 16384.0f) - bits_of(16384.0f);
    return {static_cast<uint8_t>(sign | rounded)};
  }
  // Keep three of 23 mantissa bits, ties to even, and move the exponent from bias 127 to bias 7.
  const uint32_t rounded = magnitude + 0x7ffffu + (magnitude >> 20 & 1u);
  return {static_cast<uint8_t>(sign | ((rounded >> 20) - (120u << 3)))};
}

// The half with a 256th of the number's value (NaN apart): sign, exponent and mantissa moved into place.
// Exact, subnormals too.
SERVAL_HOST_DEVICE Half half_of_fp8_over_256(Fp8 number) {
  return {static_cast<uint16_t>((number.bits & 0x80u) << 8 | (number.bits & 0x7fu) << 7)};
}

// On the host: the value of a number's bits, exact.
inline float value_of(float number) {
  return number;
}
inline float value_of(Bf16 number) {
  return bf16_to_float(number.bits);
}
inline float value_of(Half number) {
  return half_to_float(number.bits);
}
inline float value_of(Fp8 number) {
  if ((number.bits & 0x7fu) == 0x7fu) return float_of(0x7fc00000u);
  return value_of(half_of_fp8_over_256(number)) * 256.0f;
}

// On the host, as the device's instruction: nearest, ties to even; too large becomes infinite, NaN becomes 0x7fff.
inline Bf16 bf16_from_float(float value) {
  return {value != value ? uint16_t{0x7fff} : float_to_bf16(value)};
}
inline Half half_from_float(float value) {
  return {value != value ? uint16_t{0x7fff} : float_to_half(value)};
}

}  // namespace serval::cuda
