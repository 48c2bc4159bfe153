#include "kernels/quant.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/float_bits.h"

namespace serval {
namespace {

template <class Code, float (*kNumber)(Code)>
void decode(const void* data, int64_t first, int64_t count, float* to) {
  const auto* from = static_cast<const std::byte*>(data) + first * static_cast<int64_t>(sizeof(Code));
  for (int64_t i = 0; i < count; ++i) {
    Code code;
    std::memcpy(&code, from + i * sizeof code, sizeof code);
    to[i] = kNumber(code);
  }
}
float from_f32(float code) {
  return code;
}
float from_int8(int8_t code) {
  return code;
}
float from_fp8(uint8_t code) {
  return fp8_to_float(code);
}
float from_fp6(uint8_t code) {
  return fp6_to_float(code);
}

constexpr WeightFormatRow kRows[kNumWeightFormats] = {
    {.id = WeightFormat::kF32,
     .name = "f32",
     .bits = 32,
     .number = DType::kF32,
     .decode = decode<float, from_f32>},
    {.id = WeightFormat::kF16,
     .name = "f16",
     .bits = 16,
     .number = DType::kF16,
     .decode = decode<uint16_t, half_to_float>},
    {.id = WeightFormat::kBF16,
     .name = "bf16",
     .bits = 16,
     .number = DType::kBF16,
     .decode = decode<uint16_t, bf16_to_float>},
    {.id = WeightFormat::kInt8,
     .name = "int8",
     .bits = 8,
     .group = kWholeRow,
     .number = DType::kBF16,
     .decode = decode<int8_t, from_int8>},
    {.id = WeightFormat::kInt8Groups,
     .name = "int8_groups",
     .bits = 8,
     .group = kOfMatrix,
     .number = DType::kBF16,
     .decode = decode<int8_t, from_int8>},
    {.id = WeightFormat::kInt4,
     .name = "int4",
     .bits = 4,
     .group = kOfMatrix,
     .number = DType::kBF16,
     .decode = decode<int8_t, from_int8>,
     .together = 8},
    {.id = WeightFormat::kTable4,
     .name = "table4",
     .bits = 4,
     .group = kOfMatrix,
     .number = DType::kBF16,
     .decode = nullptr,
     .together = 8},
    {.id = WeightFormat::kFp8,
     .name = "fp8",
     .bits = 8,
     .group = kOfMatrix,
     .number = DType::kBF16,
     .decode = decode<uint8_t, from_fp8>},
    {.id = WeightFormat::kFp6,
     .name = "fp6",
     .bits = 6,
     .group = kOfMatrix,
     .number = DType::kBF16,
     .decode = decode<uint8_t, from_fp6>,
     .together = 16},
    {.id = WeightFormat::kInt8Dynamic,
     .name = "int8_dynamic",
     .bits = 8,
     .group = kWholeRow,
     .number = DType::kBF16,
     .decode = decode<int8_t, from_int8>,
     .rounds_rows = true},
    {.id = WeightFormat::kInt4Dynamic,
     .name = "int4_dynamic",
     .bits = 4,
     .group = kOfMatrix,
     .number = DType::kBF16,
     .decode = decode<int8_t, from_int8>,
     .rounds_rows = true,
     .together = 8},
};
static_assert([] {
  for (int i = 0; i < kNumWeightFormats; ++i)
    if (static_cast<int>(kRows[i].id) != i) return false;
  return true;
}());

// x of magnitude below 2^22 to the nearest integer, ties to even: in the sum nothing is left of the fraction.
// Compilers make vectors of this, and of a call of the library's function none.
float nearest(float x) {
  constexpr float kToInteger = 0x1.8p23f;
  return (x + kToInteger) - kToInteger;
}

}  // namespace

const WeightFormatRow& format_row(WeightFormat format) {
  return kRows[static_cast<int>(format)];
}

int64_t num_groups(const MatrixFormat& format, int64_t k) {
  const WeightFormatRow& row = format_row(format.id);
  const int64_t size = row.has_groups() ? format.group : row.group;
  if (size <= 0) return size == kWholeRow ? 1 : 0;
  return (k + size - 1) / size;
}

size_t code_bytes(WeightFormat format, int64_t n, int64_t k) {
  return static_cast<size_t>(n * k) * std::max(1, format_row(format).bits / 8);
}

size_t scale_bytes(const MatrixFormat& format, int64_t n, int64_t k) {
  return static_cast<size_t>(n * num_groups(format, k)) * sizeof(float);
}

void dequantise_row(const LinearSource& source, int64_t row, float* to) {
  const WeightFormatRow& format = format_row(source.format);
  const int64_t groups = num_groups(source.matrix_format(), source.k);
  if (format.decode != nullptr) {
    format.decode(source.data, row * source.k, source.k, to);
  } else {
    const auto* const codes = static_cast<const uint8_t*>(source.data) + row * source.k;
    for (int64_t i = 0; i < source.k; ++i) to[i] = source.table[codes[i]];
  }
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t size = groups == 1 ? source.k : source.group;
    const float scale = source.scales[row * groups + g];
    const float offset = source.offsets == nullptr ? 0 : source.offsets[row * groups + g];
    for (int64_t i = g * size; i < std::min(source.k, (g + 1) * size); ++i)
      to[i] = source.offsets == nullptr ? to[i] * scale : std::fma(to[i], scale, offset);
  }
}

WeightFormat format_of(DType type) {
  for (const WeightFormatRow& row : kRows)
    if (row.group == 0 && row.number == type) return row.id;
  SERVAL_CHECK(false, dtype_name(type));
}

LinearSource source_of(const Tensor& matrix) {
  SERVAL_CHECK(matrix.rank == 2, matrix.rank);
  return {.format = format_of(matrix.dtype), .n = matrix.dim(0), .k = matrix.dim(1), .data = matrix.data};
}

namespace {

// The largest magnitude; not a number where a value is not finite.
float largest_magnitude(std::span<const float> values) {
  float most = 0;
  bool is_finite = true;
  for (const float x : values) {
    most = std::max(most, std::abs(x));
    is_finite &= std::abs(x) <= std::numeric_limits<float>::max();
  }
  return is_finite ? most : std::numeric_limits<float>::quiet_NaN();
}

// Codes [-least.., most] of values under the scale.
void round_to_codes(std::span<const float> values, float scale, float least, float most, int8_t* codes) {
  if (!(scale != 0)) {
    std::fill_n(codes, values.size(), int8_t{0});
    return;
  }
  for (size_t i = 0; i < values.size(); ++i)
    codes[i] = static_cast<int8_t>(std::clamp(nearest(values[i] / scale), least, most));
}

// One group; returns its scale.
float quantise_group(WeightFormat format, std::span<const float> values, void* codes) {
  const float most = largest_magnitude(values);
  auto* const bytes = static_cast<uint8_t*>(codes);
  if (std::isnan(most)) {
    std::fill_n(bytes, values.size(), uint8_t{0});
    return most;
  }
  switch (format) {
    case WeightFormat::kInt8:
    case WeightFormat::kInt8Dynamic:
    case WeightFormat::kInt8Groups: {
      const float scale = most / 127;
      round_to_codes(values, scale, -127, 127, reinterpret_cast<int8_t*>(codes));
      return scale;
    }
    case WeightFormat::kInt4:
    case WeightFormat::kInt4Dynamic: {
      // The end with one code more is for the largest of both signs.
      const bool is_negative = std::find(values.begin(), values.end(), -most) != values.end();
      const float scale = is_negative ? most / 8 : -most / 8;
      round_to_codes(values, scale, -8, 7, reinterpret_cast<int8_t*>(codes));
      return scale;
    }
    case WeightFormat::kFp8:
    case WeightFormat::kFp6: {
      const bool is_fp6 = format == WeightFormat::kFp6;
      const float scale = most / (is_fp6 ? kLargestFp6 : kLargestFp8);
      for (size_t i = 0; i < values.size(); ++i) {
        const float value = scale != 0 ? values[i] / scale : 0;
        bytes[i] = is_fp6 ? float_to_fp6(value) : float_to_fp8(value);
      }
      return scale;
    }
    default:
      break;
  }
  SERVAL_CHECK(false, format_row(format).name);
}

}  // namespace

float round_row(const float* x, int64_t k, int8_t* codes) {
  const float most = largest_magnitude({x, static_cast<size_t>(k)});
  if (!(most >= 0x1p-100f)) {
    std::fill_n(codes, k, int8_t{0});
    return std::isnan(most) ? most : 0;
  }
  const float factor = 127 / most;
  for (int64_t i = 0; i < k; ++i) codes[i] = static_cast<int8_t>(nearest(x[i] * factor));
  return most / 127;
}

uint32_t round_between(const float* x, int64_t k, uint8_t* codes) {
  std::fill_n(codes, k, uint8_t{0});
  if (std::isnan(largest_magnitude({x, static_cast<size_t>(k)}))) return 0x7fc07fc0u;
  const auto [least, most] = std::minmax_element(x, x + k);
  const uint16_t scale_bits = float_to_bf16(*most / 15 - *least / 15), offset_bits = float_to_bf16(*least);
  const float scale = bf16_to_float(scale_bits), offset = bf16_to_float(offset_bits);
  for (int64_t i = 0; i < k && scale >= 0x1p-100f; ++i)
    codes[i] = static_cast<uint8_t>(nearest(std::clamp((x[i] - offset) / scale, 0.0f, 15.0f)));
  return uint32_t{offset_bits} << 16 | scale_bits;
}

void quantise_int8(const Tensor& matrix, int8_t* codes, float* scales) {
  quantise_groups(matrix, {WeightFormat::kInt8, kWholeRow}, codes, scales);
}

void quantise_groups(const Tensor& matrix, const MatrixFormat& format, void* codes, float* scales) {
  const LinearSource source = source_of(matrix);
  std::vector<float> row(source.k);
  auto* to = static_cast<std::byte*>(codes);
  const int64_t groups = num_groups(format, source.k), size = groups == 1 ? source.k : format.group;
  for (int64_t r = 0; r < source.n; ++r) {
    dequantise_row(source, r, row.data());
    for (int64_t g = 0; g < groups; ++g) {
      const auto count = static_cast<size_t>(std::min(size, source.k - g * size));
      *scales++ = quantise_group(format.id, {row.data() + g * size, count}, to);
      to += count;
    }
  }
}

}  // namespace serval
