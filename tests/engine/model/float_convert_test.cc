#include "engine/model/float_convert.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace serval::testing {
namespace {

uint16_t to_16(float value, DType type) {
  uint16_t out = 0;
  convert(&value, DType::kF32, &out, type, 1);
  return out;
}
float from_16(uint16_t bits, DType type) {
  float out = 0;
  convert(&bits, type, &out, DType::kF32, 1);
  return out;
}

TEST(FloatConvert, AgreesWithTheProcessorOnEveryHalf) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float expected = static_cast<float>(std::bit_cast<_Float16>(half));
    const float got = from_16(half, DType::kF16);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(got)) << bits;
      ASSERT_TRUE(std::isnan(from_16(to_16(got, DType::kF16), DType::kF16))) << bits;
    } else {
      ASSERT_EQ(std::bit_cast<uint32_t>(got), std::bit_cast<uint32_t>(expected)) << bits;
      ASSERT_EQ(to_16(got, DType::kF16), half) << bits;
    }
  }
}

TEST(FloatConvert, RoundsToHalfAsTheProcessorDoes) {
  std::mt19937 random(3);
  const auto check = [](float value) {
    ASSERT_EQ(to_16(value, DType::kF16), std::bit_cast<uint16_t>(static_cast<_Float16>(value))) << value;
  };
  for (int i = 0; i < 2'000'000; ++i) {
    // Exponents around the range of halves: most floats are far outside.
    const uint32_t exponent = 127 - 30 + random() % 50;
    check(std::bit_cast<float>((static_cast<uint32_t>(random()) & 0x807fffffu) | exponent << 23));
  }
  for (const float edge :
       {65504.f, 65519.9f, 65520.f, 65536.f, 0x1p-14f, 0x1p-24f, 0x1p-25f, 0x1.000002p-25f, 0.f, -0.f,
        std::numeric_limits<float>::infinity(), std::numeric_limits<float>::denorm_min()}) {
    check(edge);
    check(-edge);
  }
}

TEST(FloatConvert, RoundsToBfloatToNearestEven) {
  EXPECT_EQ(to_16(1.0f, DType::kBF16), 0x3f80);
  EXPECT_EQ(to_16(std::bit_cast<float>(0x3f808000u), DType::kBF16), 0x3f80)
      << "a tie goes to the even one below";
  EXPECT_EQ(to_16(std::bit_cast<float>(0x3f818000u), DType::kBF16), 0x3f82)
      << "a tie goes to the even one above";
  EXPECT_EQ(to_16(std::bit_cast<float>(0x3f808001u), DType::kBF16), 0x3f81);
  EXPECT_EQ(to_16(std::numeric_limits<float>::max(), DType::kBF16), 0x7f80) << "rounds to infinity";
  EXPECT_TRUE(std::isnan(from_16(to_16(std::bit_cast<float>(0x7f800001u), DType::kBF16), DType::kBF16)));
  for (uint32_t bits = 0; bits < 0x7f80; ++bits) {
    ASSERT_EQ(to_16(from_16(static_cast<uint16_t>(bits), DType::kBF16), DType::kBF16), bits);
  }
}

TEST(FloatConvert, GoesBetweenTheTwoHalfTypesThroughSingle) {
  const uint16_t one_and_a_half = 0x3fc0;  // bf16
  uint16_t half = 0;
  convert(&one_and_a_half, DType::kBF16, &half, DType::kF16, 1);
  EXPECT_EQ(half, 0x3e00);
}

TEST(FloatConvert, FindsValuesThatAreNotFinite) {
  std::vector<float> values(33, 1.0f);
  EXPECT_TRUE(all_finite(values.data(), DType::kF32, values.size()));
  for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
      std::vector<float> with_bad = values;
      with_bad[32] = bad;
      std::vector<uint32_t> converted(33);
      convert(with_bad.data(), DType::kF32, converted.data(), type, with_bad.size());
      EXPECT_FALSE(all_finite(converted.data(), type, 33));
      EXPECT_TRUE(all_finite(converted.data(), type, 32));
    }
  }
}

}  // namespace
}  // namespace serval::testing
