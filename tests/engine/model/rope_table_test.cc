#include "engine/model/rope_table.h"

#include <gtest/gtest.h>

#include <cmath>

namespace serval::testing {
namespace {

TEST(RopeTable, TurnsPairsAtFallingFrequencies) {
  const RopeSpec spec{.theta = 10000, .scaling = {}, .rotary_dim = 8};
  const std::vector<double> frequencies = rope_frequencies(spec);
  ASSERT_EQ(frequencies.size(), 4u);
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(frequencies[i], std::pow(10.0, -i), 1e-12);

  std::vector<float> table(3 * 8);
  fill_rope_table(spec, 3, table.data());
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(table[i], 1.0f) << "position 0 does not turn";
    EXPECT_EQ(table[4 + i], 0.0f);
    EXPECT_EQ(table[2 * 8 + i], static_cast<float>(std::cos(2 * frequencies[i])));
    EXPECT_EQ(table[2 * 8 + 4 + i], static_cast<float>(std::sin(2 * frequencies[i])));
  }
}

TEST(RopeTable, ScalesLinearlyByTheFactor) {
  const RopeSpec plain{.theta = 10000, .scaling = {}, .rotary_dim = 16};
  RopeSpec scaled = plain;
  scaled.scaling = {.type = RopeScaling::Type::kLinear, .factor = 4};
  for (int i = 0; i < 8; ++i) EXPECT_EQ(rope_frequencies(scaled)[i], rope_frequencies(plain)[i] / 4);
}

TEST(RopeTable, ScalesEachPairByItsOwnFactorAndTheTableByOne) {
  const RopeSpec plain{.theta = 10000, .scaling = {}, .rotary_dim = 4};
  RopeSpec scaled = plain;
  scaled.scaling.type = RopeScaling::Type::kByPair;
  scaled.scaling.factors = {2, 5};
  scaled.amplitude = 1.25;
  EXPECT_EQ(rope_frequencies(scaled)[0], rope_frequencies(plain)[0] / 2);
  EXPECT_EQ(rope_frequencies(scaled)[1], rope_frequencies(plain)[1] / 5);
  std::vector<float> table(2 * 4);
  fill_rope_table(scaled, 2, table.data());
  EXPECT_EQ(table[0], 1.25f);
  EXPECT_EQ(table[4 + 1], static_cast<float>(1.25 * std::cos(0.002)));
}

TEST(RopeTable, ScalesLlama3ByWavelength) {
  // Llama 3.1 8B: 8192 original positions, so wavelengths below 2048 stay and those above 8192 are stretched
  // eightfold.
  RopeSpec spec{.theta = 500000, .scaling = {}, .rotary_dim = 128};
  const std::vector<double> plain = rope_frequencies(spec);
  spec.scaling = {.type = RopeScaling::Type::kLlama3,
                  .factor = 8,
                  .low_freq_factor = 1,
                  .high_freq_factor = 4,
                  .original_max_positions = 8192};
  const std::vector<double> scaled = rope_frequencies(spec);
  int kept = 0, stretched = 0, between = 0;
  for (int i = 0; i < 64; ++i) {
    const double wavelength = 2 * M_PI / plain[i];
    if (wavelength < 2048) {
      EXPECT_EQ(scaled[i], plain[i]);
      ++kept;
    } else if (wavelength > 8192) {
      EXPECT_EQ(scaled[i], plain[i] / 8);
      ++stretched;
    } else {
      EXPECT_LT(scaled[i], plain[i]);
      EXPECT_GT(scaled[i], plain[i] / 8);
      ++between;
    }
    if (i > 0) {
      EXPECT_LT(scaled[i], scaled[i - 1]) << "no frequency overtakes another";
    }
  }
  EXPECT_EQ(kept, 29);
  EXPECT_EQ(between, 6);
  EXPECT_EQ(stretched, 29);
}

}  // namespace
}  // namespace serval::testing
