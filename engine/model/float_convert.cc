#include "engine/model/float_convert.h"

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/base/check.h"

namespace serval {
namespace {

float from_bf16(uint16_t bits) {
  return std::bit_cast<float>(uint32_t{bits} << 16);
}

uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value))
    return static_cast<uint16_t>(bits >> 16 | 0x40);  // rounding could carry a NaN into infinity
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Half precision: 1 sign, 5 exponent (bias 15), 10 fraction bits.
float from_f16(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16;
  const uint32_t exponent = bits >> 10 & 0x1f;
  const uint32_t fraction = bits & 0x3ff;
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24, exact in f32
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  const uint32_t wide = exponent == 0x1f ? 0xff : exponent + 112;
  return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
}

uint16_t to_f16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;   // NaN
  if (magnitude >= 0x477ff000) return sign | 0x7c00;  // from 65520 on, rounding reaches infinity
  if (magnitude < 0x38800000) {
    // Below 2^-14 the result counts units of 2^-24; adding 2^23 units to the f32 makes its own rounding do
    // ours.
    const float shifted = std::bit_cast<float>(magnitude) * 0x1p24f + 0x1p23f;
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(shifted) & 0x7ff);
  }
  const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
  return sign | static_cast<uint16_t>((rounded - 0x38000000) >> 13);
}

template <class From, class Decode, class To, class Encode>
void transform(const void* from, Decode decode, void* to, Encode encode, size_t count) {
  const From* in = static_cast<const From*>(from);
  To* out = static_cast<To*>(to);
  for (size_t i = 0; i < count; ++i) out[i] = encode(decode(in[i]));
}

template <class From, class Decode>
void convert_from(const void* from, Decode decode, void* to, DType to_type, size_t count) {
  const auto same = [](float value) { return value; };
  switch (to_type) {
    case DType::kF32:
      return transform<From, Decode, float>(from, decode, to, same, count);
    case DType::kF16:
      return transform<From, Decode, uint16_t>(from, decode, to, to_f16, count);
    case DType::kBF16:
      return transform<From, Decode, uint16_t>(from, decode, to, to_bf16, count);
    case DType::kI32:
    case DType::kF8:
      break;
  }
  SERVAL_CHECK(false, dtype_name(to_type));
}

// All exponent bits set marks infinities and NaNs in every IEEE type.
template <class Bits>
bool none_has(const void* values, size_t count, Bits exponent_mask) {
  const Bits* bits = static_cast<const Bits*>(values);
  bool finite = true;
  for (size_t i = 0; i < count; ++i) finite &= (bits[i] & exponent_mask) != exponent_mask;
  return finite;
}

}  // namespace

void convert(const void* from, DType from_type, void* to, DType to_type, size_t count) {
  const auto same = [](float value) { return value; };
  switch (from_type) {
    case DType::kF32:
      return convert_from<float>(from, same, to, to_type, count);
    case DType::kF16:
      return convert_from<uint16_t>(from, from_f16, to, to_type, count);
    case DType::kBF16:
      return convert_from<uint16_t>(from, from_bf16, to, to_type, count);
    case DType::kI32:
    case DType::kF8:
      break;
  }
  SERVAL_CHECK(false, dtype_name(from_type));
}

bool all_finite(const void* values, DType type, size_t count) {
  switch (type) {
    case DType::kF32:
      return none_has<uint32_t>(values, count, 0x7f800000);
    case DType::kF16:
      return none_has<uint16_t>(values, count, 0x7c00);
    case DType::kBF16:
      return none_has<uint16_t>(values, count, 0x7f80);
    case DType::kI32:
    case DType::kF8:
      break;
  }
  SERVAL_CHECK(false, dtype_name(type));
}

}  // namespace serval
