#include "kernels/quant.h"

#include <cstring>

#include "kernels/base/check.h"
#include "kernels/float_bits.h"

namespace serval {
namespace {

template <class Code>
Code code_at(const void* data, int64_t i) {
  Code code;
  std::memcpy(&code, static_cast<const std::byte*>(data) + i * static_cast<int64_t>(sizeof code), sizeof code);
  return code;
}

float decode_f32(const void* data, int64_t i) {
  return code_at<float>(data, i);
}
float decode_f16(const void* data, int64_t i) {
  return half_to_float(code_at<uint16_t>(data, i));
}
float decode_bf16(const void* data, int64_t i) {
  return bf16_to_float(code_at<uint16_t>(data, i));
}

constexpr WeightFormatRow kRows[kNumWeightFormats] = {
    {.id = WeightFormat::kF32, .name = "f32", .bits = 32, .decode = decode_f32},
    {.id = WeightFormat::kF16, .name = "f16", .bits = 16, .decode = decode_f16},
    {.id = WeightFormat::kBF16, .name = "bf16", .bits = 16, .decode = decode_bf16},
};
static_assert([] {
  for (int i = 0; i < kNumWeightFormats; ++i)
    if (static_cast<int>(kRows[i].id) != i) return false;
  return true;
}());

constexpr std::pair<DType, WeightFormat> kPlain[] = {{DType::kF32, WeightFormat::kF32},
                                                     {DType::kF16, WeightFormat::kF16},
                                                     {DType::kBF16, WeightFormat::kBF16}};

}  // namespace

const WeightFormatRow& format_row(WeightFormat format) {
  return kRows[static_cast<int>(format)];
}

size_t code_bytes(WeightFormat format, int64_t n, int64_t k) {
  return static_cast<size_t>(n * k) * format_row(format).bits / 8;
}

void dequantise_row(const LinearSource& source, int64_t row, float* to) {
  const WeightFormatRow& format = format_row(source.format);
  for (int64_t i = 0; i < source.k; ++i) to[i] = format.decode(source.data, row * source.k + i);
}

WeightFormat format_of(DType type) {
  for (const auto& [plain, format] : kPlain)
    if (plain == type) return format;
  SERVAL_CHECK(false, dtype_name(type));
}

DType dtype_of(WeightFormat format) {
  for (const auto& [type, plain] : kPlain)
    if (plain == format) return type;
  SERVAL_CHECK(false, format_row(format).name);
}

LinearSource source_of(const Tensor& matrix) {
  SERVAL_CHECK(matrix.rank == 2, matrix.rank);
  return {.format = format_of(matrix.dtype), .n = matrix.dim(0), .k = matrix.dim(1), .data = matrix.data};
}

}  // namespace serval
