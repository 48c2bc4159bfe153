// The rows of the table of weight formats, and rounding to int8, against their definitions.
#include "kernels/quant.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/kernels/support.h"

namespace serval {
namespace {

using testing::kAllFormats;
using testing::Random;
using testing::Stored;

TEST(WeightFormats, MeanWhatTheirRowsSay) {
  Random random(1);
  for (const WeightFormat format : kAllFormats) {
    const Stored stored(random.floats(5 * 13), 5, 13, format);
    std::vector<float> row(13);
    for (int64_t r = 0; r < 5; ++r) {
      dequantise_row(stored.source(), r, row.data());
      for (int64_t i = 0; i < 13; ++i)
        EXPECT_EQ(row[i], static_cast<float>(stored.values[r * 13 + i])) << format_row(format).name;
    }
  }
}

TEST(WeightFormats, TakeTheBytesTheySay) {
  EXPECT_EQ(code_bytes(WeightFormat::kF32, 3, 5), 60u);
  EXPECT_EQ(code_bytes(WeightFormat::kBF16, 3, 5), 30u);
  EXPECT_EQ(code_bytes(WeightFormat::kInt8, 3, 5), 15u);
  EXPECT_EQ(scale_bytes(WeightFormat::kBF16, 3, 5), 0u);
  EXPECT_EQ(scale_bytes(WeightFormat::kInt8, 3, 5), 12u);
}

TEST(RoundBetween, KeepsEveryNumberWithinHalfAStep) {
  Random random(6);
  for (const float level : {0.0f, 3.0f, -200.0f}) {
    std::vector<float> x = random.floats(40);
    for (float& value : x) value += level;
    std::vector<uint8_t> codes(x.size());
    const uint32_t both = round_between(x.data(), 40, codes.data());
    const float scale = bf16_to_float(static_cast<uint16_t>(both)), offset = bf16_to_float(static_cast<uint16_t>(both >> 16));
    const auto [least, most] = std::minmax_element(x.begin(), x.end());
    EXPECT_NEAR(scale, (*most - *least) / 15, scale / 200);
    EXPECT_NEAR(offset, *least, std::abs(*least) / 250);
    // What rounding the scale and the offset leaves out at either end.
    const float lost = scale * 0.06f + std::abs(*least) / 250;
    for (size_t i = 0; i < x.size(); ++i) {
      EXPECT_LE(codes[i], 15);
      EXPECT_NEAR(static_cast<float>(codes[i]) * scale + offset, x[i], scale / 2 + lost) << level;
    }
  }
}

TEST(RoundBetween, HasAnAnswerForAllNumbersAlikeAndForNoNumbers) {
  std::vector<float> x(6, -1.5f);
  std::vector<uint8_t> codes(6, 9);
  EXPECT_EQ(round_between(x.data(), 6, codes.data()), uint32_t{float_to_bf16(-1.5f)} << 16);
  EXPECT_EQ(codes, std::vector<uint8_t>(6, 0));
  for (const float strange : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    x[3] = strange;
    const uint32_t both = round_between(x.data(), 6, codes.data());
    EXPECT_TRUE(std::isnan(bf16_to_float(static_cast<uint16_t>(both))));
    EXPECT_TRUE(std::isnan(bf16_to_float(static_cast<uint16_t>(both >> 16))));
    EXPECT_EQ(codes, std::vector<uint8_t>(6, 0));
  }
}

struct Rounded {
  std::vector<int8_t> codes;
  std::vector<float> scales;

  Rounded(const Stored& from) : codes(from.n * from.k), scales(from.n) {
    const Tensor matrix(const_cast<std::byte*>(from.codes.data()), format_row(from.format).number,
                        {from.n, from.k});
    quantise_int8(matrix, codes.data(), scales.data());
  }
};

TEST(Fp8, HasTheNearestOfItsNumbersWithTiesToEven) {
  for (int code = 0; code < 0x7f; ++code) {
    const float here = fp8_to_float(static_cast<uint8_t>(code)), next = fp8_to_float(static_cast<uint8_t>(code + 1));
    EXPECT_EQ(float_to_fp8(here), code);
    EXPECT_EQ(float_to_fp8(-here), code | 0x80);
    if (code == 0x7e) break;
    const float middle = (here + next) / 2;
    EXPECT_EQ(float_to_fp8(middle), code + (code & 1)) << code;
    EXPECT_EQ(float_to_fp8(std::nextafter(middle, 0.0f)), code);
    EXPECT_EQ(float_to_fp8(std::nextafter(middle, 1e9f)), code + 1);
  }
  EXPECT_EQ(fp8_to_float(0x7e), kLargestFp8);
  EXPECT_EQ(fp8_to_float(0x01), 0x1p-9f);
  EXPECT_EQ(float_to_fp8(1e30f), 0x7e);
  EXPECT_EQ(float_to_fp8(std::nanf("")), 0x7f);
  EXPECT_TRUE(std::isnan(fp8_to_float(0x7f)));
}

TEST(Fp6, HasTheNearestOfItsNumbersWithTiesToEven) {
  for (int code = 0; code < 0x20; ++code) {
    const float here = fp6_to_float(static_cast<uint8_t>(code));
    const int exponent = code >> 2, mantissa = code & 3;
    EXPECT_EQ(here, exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -4) : std::ldexp(1 + static_cast<float>(mantissa) / 4, exponent - 3));
    EXPECT_EQ(fp6_to_float(static_cast<uint8_t>(code | 0x20)), -here);
    EXPECT_EQ(float_to_fp6(here), code);
    EXPECT_EQ(float_to_fp6(-here), code | 0x20);
    if (code == 0x1f) break;
    const float middle = (here + fp6_to_float(static_cast<uint8_t>(code + 1))) / 2;
    EXPECT_EQ(float_to_fp6(middle), code + (code & 1)) << code;
    EXPECT_EQ(float_to_fp6(std::nextafter(middle, 0.0f)), code);
    EXPECT_EQ(float_to_fp6(std::nextafter(middle, 1e9f)), code + 1);
  }
  EXPECT_EQ(fp6_to_float(0x1f), kLargestFp6);
  EXPECT_EQ(float_to_fp6(-1e30f), 0x3f);
}

TEST(Groups, AreNoFartherFromTheNumbersThanHalfAStep) {
  Random random(9);
  const int64_t n = 7, k = 100;
  const std::vector<float> values = random.floats(n * k);
  const Tensor matrix(const_cast<float*>(values.data()), DType::kF32, {n, k});
  for (const MatrixFormat format : {MatrixFormat{WeightFormat::kInt8Groups, 32}, MatrixFormat{WeightFormat::kInt4, 32},
                                    MatrixFormat{WeightFormat::kFp8, 32}, MatrixFormat{WeightFormat::kFp8, kWholeRow},
                                    MatrixFormat{WeightFormat::kFp6, 32}, MatrixFormat{WeightFormat::kInt4Dynamic, 16}}) {
    std::vector<std::byte> codes(code_bytes(format.id, n, k));
    std::vector<float> scales(n * num_groups(format, k)), row(k);
    quantise_groups(matrix, format, codes.data(), scales.data());
    const LinearSource source{
        .format = format.id, .n = n, .k = k, .data = codes.data(), .scales = scales.data(), .group = format.group};
    for (int64_t r = 0; r < n; ++r) {
      dequantise_row(source, r, row.data());
      for (int64_t i = 0; i < k; ++i) {
        const float value = values[r * k + i];
        const float scale = std::abs(scales[r * num_groups(format, k) + (format.group > 0 ? i / format.group : 0)]);
        // The largest of the other sign may lie a step beyond the last code.
        const float step = format.id == WeightFormat::kFp8    ? std::max(std::abs(value) / 16, scale * 0x1p-10f)
                           : format.id == WeightFormat::kFp6  ? std::max(std::abs(value) / 8, scale * 0x1p-5f)
                           : format_row(format.id).bits == 4 ? scale
                                                              : scale / 2;
        ASSERT_LE(std::abs(row[i] - value), step * 1.0001f) << format_row(format.id).name << " " << value;
      }
    }
  }
}

TEST(Int8, IsTheNearestCodeUnderTheScaleOfTheLargestOfTheRow) {
  Random random(2);
  const int64_t n = 40, k = 301;
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kF16, WeightFormat::kBF16}) {
    std::vector<float> values = random.floats(n * k);
    for (int64_t i = 0; i < n * k; ++i) values[i] *= std::ldexp(1.0f, static_cast<int>(i / k) % 20 - 10);
    const Stored stored(values, n, k, format);
    const Rounded rounded(stored);
    for (int64_t r = 0; r < n; ++r) {
      const auto row = stored.values.begin() + r * k;
      const double most = std::abs(
          *std::max_element(row, row + k, [](double a, double b) { return std::abs(a) < std::abs(b); }));
      const double scale = rounded.scales[r];
      ASSERT_NEAR(scale, most / 127, 1e-7 * most);
      int largest = 0;
      for (int64_t i = 0; i < k; ++i) {
        const int code = rounded.codes[r * k + i];
        largest = std::max(largest, std::abs(code));
        ASSERT_LE(std::abs(code * scale - row[i]), scale * 0.50001) << row[i];
      }
      EXPECT_EQ(largest, 127);
    }
  }
}

TEST(Int8, RoundsTiesToEvenAndKeepsTheSign) {
  const Rounded rounded(
      Stored({127, -127, 0.5f, 1.5f, -0.5f, -2.5f, 2.49f, -0.0f}, 1, 8, WeightFormat::kF32));
  EXPECT_EQ(rounded.scales[0], 1.0f);
  EXPECT_EQ(rounded.codes, (std::vector<int8_t>{127, -127, 0, 2, 0, -2, 2, 0}));
}

TEST(Int8, HasRowsOfZerosOfTheSmallestNumbersAndOfTheLargest) {
  constexpr float kMost = std::numeric_limits<float>::max(),
                  kLeast = std::numeric_limits<float>::denorm_min();
  const Rounded rounded(Stored({0, -0.0f, kLeast, -kLeast, kMost, -kMost, 180 * kLeast, -180 * kLeast}, 4, 2,
                               WeightFormat::kF32));
  EXPECT_EQ(rounded.codes[0], 0);
  EXPECT_EQ(rounded.scales[0], 0.0f);
  EXPECT_EQ(rounded.scales[1], 0.0f) << "a scale below the least number";
  EXPECT_EQ(rounded.codes[2], 0);
  EXPECT_EQ(rounded.codes[4], 127);
  EXPECT_EQ(rounded.codes[5], -127);
  EXPECT_EQ(rounded.scales[3], kLeast);
  EXPECT_EQ(rounded.codes[6], 127) << "180 under the scale that is left: codes stay in range";
  EXPECT_EQ(rounded.codes[7], -127);
}

TEST(Int8, MakesARowThatIsNotFiniteNotANumber) {
  for (const float odd :
       {std::nanf(""), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    const Rounded rounded(Stored({1, odd, 3, 4}, 2, 2, WeightFormat::kF32));
    EXPECT_TRUE(std::isnan(rounded.scales[0]));
    EXPECT_EQ(rounded.scales[1], 4.0f / 127);
  }
}

}  // namespace
}  // namespace serval
