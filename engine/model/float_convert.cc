#include "engine/model/float_convert.h"

#include <cstdint>

#include "kernels/base/check.h"
#include "kernels/float_bits.h"

namespace serval {
namespace {

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
      return transform<From, Decode, uint16_t>(from, decode, to, float_to_half, count);
    case DType::kBF16:
      return transform<From, Decode, uint16_t>(from, decode, to, float_to_bf16, count);
    case DType::kI32:
    case DType::kF8:
    case DType::kI8:
    case DType::kI4:
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
      return convert_from<uint16_t>(from, half_to_float, to, to_type, count);
    case DType::kBF16:
      return convert_from<uint16_t>(from, bf16_to_float, to, to_type, count);
    case DType::kI32:
    case DType::kF8:
    case DType::kI8:
    case DType::kI4:
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
    case DType::kI8:
    case DType::kI4:
      break;
  }
  SERVAL_CHECK(false, dtype_name(type));
}

}  // namespace serval
