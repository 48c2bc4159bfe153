#include "kernels/quant.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
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
};
static_assert([] {
  for (int i = 0; i < kNumWeightFormats; ++i)
    if (static_cast<int>(kRows[i].id) != i) return false;
  return true;
}());

int64_t groups_of(const WeightFormatRow& format, int64_t k) {
  if (format.group <= 0) return format.group == kWholeRow ? 1 : 0;
  return (k + format.group - 1) / format.group;
}

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

size_t code_bytes(WeightFormat format, int64_t n, int64_t k) {
  return static_cast<size_t>(n * k) * format_row(format).bits / 8;
}

size_t scale_bytes(WeightFormat format, int64_t n, int64_t k) {
  return static_cast<size_t>(n * groups_of(format_row(format), k)) *
         dtype_bytes(format_row(format).scale_type);
}

void dequantise_row(const LinearSource& source, int64_t row, float* to) {
  const WeightFormatRow& format = format_row(source.format);
  SERVAL_CHECK(!format.has_zeros && format.scale_type == DType::kF32, format.name);
  const int64_t groups = groups_of(format, source.k);
  format.decode(source.data, row * source.k, source.k, to);
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t size = format.group == kWholeRow ? source.k : format.group;
    for (int64_t i = g * size; i < std::min(source.k, (g + 1) * size); ++i)
      to[i] *= source.scales[row * groups + g];
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

void quantise_int8(const Tensor& matrix, int8_t* codes, float* scales) {
  const LinearSource source = source_of(matrix);
  constexpr float kLargest = 127;
  std::vector<float> row(source.k);
  for (int64_t r = 0; r < source.n; ++r, codes += source.k) {
    dequantise_row(source, r, row.data());
    float most = 0;
    bool is_finite = true;
    for (const float x : row) {
      most = std::max(most, std::abs(x));
      is_finite &= std::abs(x) <= std::numeric_limits<float>::max();
    }
    const float scale = most / kLargest;
    scales[r] = is_finite ? scale : std::numeric_limits<float>::quiet_NaN();
    if (!is_finite || scale == 0) {
      std::fill_n(codes, source.k, int8_t{0});
      continue;
    }
    for (int64_t i = 0; i < source.k; ++i)
      codes[i] = static_cast<int8_t>(std::clamp(nearest(row[i] / scale), -kLargest, kLargest));
  }
}

}  // namespace serval
