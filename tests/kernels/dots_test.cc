// The products of bytes: every set of instructions that this machine runs gives the bits of the definition.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/quant.h"
#include "tests/kernels/support.h"

namespace serval::cpu {
namespace {

using serval::testing::Random;
using serval::testing::same_bits;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

// Rows of a panel's outputs have columns beyond those that are valid, which nobody may touch.
constexpr int kBeyond = 3;
constexpr float kUntouched = 7;

// Bit for bit what want(row, column) says. out [rows][valid + kBeyond].
template <class Want>
void compare(const std::vector<float>& out, int rows, int valid, const Want& want) {
  for (int r = 0; r < rows; ++r) {
    for (int lane = 0; lane < valid + kBeyond; ++lane) {
      const float is = out[r * (valid + kBeyond) + lane], expected = lane < valid ? want(r, lane) : kUntouched;
      ASSERT_TRUE(same_bits(&is, &expected, 1))
          << "row " << r << " of " << rows << ", column " << lane << " of " << valid << ": " << is << " instead of " << expected;
    }
  }
}

class Dots : public ::testing::TestWithParam<const DotTable*> {};
INSTANTIATE_TEST_SUITE_P(Cpu, Dots, ::testing::ValuesIn(runnable_dots()), [](const auto& info) { return info.param->name; });

TEST_P(Dots, RowsAreRoundedAsDefined) {
  Random random(1);
  std::vector<std::vector<float>> rows;
  for (const int k : {1, 3, 16, 31, 64, 100, 515}) rows.push_back(random.floats(k));
  rows.push_back(std::vector<float>(70, 0.0f));
  rows.push_back({1e-33f, -2e-32f, 0});
  rows.push_back({0x1p-100f, 0x1p-101f});
  rows.push_back({std::numeric_limits<float>::max(), -1, std::numeric_limits<float>::denorm_min()});
  rows.push_back({127, 0.5f, 1.5f, -0.5f, -1.5f, 2.5f, -126.5f, 63.49999f});
  rows.push_back(random.floats(40));
  rows.back()[39] = kNaN;
  rows.push_back(random.floats(40));
  rows.back()[0] = -kInfinity;
  for (const std::vector<float>& x : rows) {
    const auto k = static_cast<int64_t>(x.size()), padded = (k + kDotStep - 1) / kDotStep * kDotStep;
    std::vector<int8_t> want(k);
    const float wanted = serval::round_row(x.data(), k, want.data());
    for (const uint8_t zero : {128, 0}) {
      std::vector<uint8_t> codes(padded + 1, 7);
      float scale = 0;
      GetParam()->round_row(x.data(), k, padded, zero, codes.data(), &scale);
      EXPECT_TRUE(same_bits(&scale, &wanted, 1) || (std::isnan(scale) && std::isnan(wanted))) << scale << " " << wanted;
      for (int64_t i = 0; i < padded; ++i)
        ASSERT_EQ(codes[i], static_cast<uint8_t>(i < k ? want[i] + zero : zero)) << "k=" << k << " at " << i;
      EXPECT_EQ(codes[padded], 7);
    }
  }
}

TEST_P(Dots, SumsAreExactAndScaledAsDefined) {
  Random random(2);
  for (const int64_t k : {64, 192, 1024}) {
    for (const int rows : {1, 2, 3, 4, 5, 8, 11, 12, 13, 16, 17, 31, 32, 33, 63, 64, 70}) {
      for (const int valid : {1, 17, 32}) {
        std::vector<int8_t> codes(k * kPanel), panel(k * kPanel);
        std::vector<uint8_t> x(rows * k);
        std::vector<float> row_scales, bias = random.floats(valid);
        // The ends too, so that no product is beyond what an instruction adds up without loss.
        for (int8_t& code : codes) code = static_cast<int8_t>(random.below(3) == 0 ? 127 - 254 * random.below(2) : random.below(255) - 127);
        for (uint8_t& code : x) code = static_cast<uint8_t>(random.below(3) == 0 ? 1 + 254 * random.below(2) : 1 + random.below(255));
        for (int r = 0; r < rows; ++r) row_scales.push_back(0.001f * static_cast<float>(1 + random.below(100)));
        DotScales scales;
        for (int lane = 0; lane < kPanel; ++lane) {
          scales.scale[lane] = 0.01f * static_cast<float>(1 + random.below(100));
          scales.excess[lane] = 0;
          for (int64_t i = 0; i < k; ++i) {
            panel[(i / 4 * kPanel + lane) * 4 + i % 4] = codes[lane * k + i];
            scales.excess[lane] += 128 * codes[lane * k + i];
          }
        }
        const int64_t stride = valid + kBeyond;
        std::vector<float> out(rows * stride, kUntouched);
        for (const bool has_bias : {false, true}) {
          GetParam()->panel({.weights = panel.data(),
                             .rows = x.data(),
                             .row_scales = row_scales.data(),
                             .num_rows = rows,
                             .k = k,
                             .scales = &scales,
                             .bias = has_bias ? bias.data() : nullptr,
                             .out = out.data(),
                             .out_stride = stride,
                             .valid = valid});
          SCOPED_TRACE(::testing::Message() << "k=" << k);
          ASSERT_NO_FATAL_FAILURE(compare(out, rows, valid, [&](int r, int lane) {
            int32_t sum = 0;
            for (int64_t i = 0; i < k; ++i) sum += codes[lane * k + i] * (x[r * k + i] - 128);
            return static_cast<float>(sum) * (scales.scale[lane] * row_scales[r]) + (has_bias ? bias[lane] : 0.0f);
          }));
        }
      }
    }
  }
}

TEST_P(Dots, GroupsOf4BitsAreExactSumsAddedUpAsDefined) {
  Random random(3);
  struct Case {
    int64_t k, piece, pieces_of_group;
    bool has_offsets;
  };
  for (const auto& [k, piece, pieces_of_group, has_offsets] :
       {Case{64, 32, 1, false}, {192, 16, 1, true}, {200, 24, 1, true}, {1024, 128, 1, false}, {1048, 512, 3, true}, {1536, 256, 3, false}, {8, 8, 1, false}}) {
    const int64_t pieces = (k + piece - 1) / piece, stride_of_group = has_offsets ? 2 * kPanel : kPanel;
    for (const int rows : {1, 2, 3, 4, 5, 8, 11, 12, 13, 16, 25, 31, 70}) {
      for (const int valid : {1, 17, 32}) {
        std::vector<int> codes(k * kPanel);
        std::vector<uint8_t> panel(k * kPanel / 2);
        std::vector<int8_t> x(rows * k);
        std::vector<int32_t> row_sums(rows * pieces);
        std::vector<float> scales = random.floats(pieces * stride_of_group), row_scales, bias = random.floats(valid);
        // The ends too, so that no product is beyond what an instruction adds up without loss.
        for (int& code : codes) code = random.below(3) == 0 ? 15 * random.below(2) : random.below(16);
        for (int8_t& code : x) code = static_cast<int8_t>(random.below(3) == 0 ? 127 - 254 * random.below(2) : random.below(255) - 127);
        if (rows > 1) std::fill_n(x.begin(), k, int8_t{127});
        if (rows > 2) std::fill_n(x.begin() + k, k, int8_t{-127});
        for (int lane = 0; lane < kPanel; ++lane) {
          if (lane % 5 == 0) std::fill_n(codes.begin() + lane * k, k, 15);
          for (int64_t i = 0; i < k; ++i)
            panel[(i / 8 * kPanel + lane) * 4 + i % 4] |= static_cast<uint8_t>(codes[lane * k + i] << (i % 8 < 4 ? 0 : 4));
        }
        for (int r = 0; r < rows; ++r) {
          row_scales.push_back(0.001f * static_cast<float>(1 + random.below(100)));
          GetParam()->sum_pieces(&x[r * k], k, piece, &row_sums[r * pieces]);
        }
        const int64_t stride = valid + kBeyond;
        std::vector<float> out(rows * stride, kUntouched);
        for (const bool has_bias : {false, true}) {
          GetParam()->nibble_panel({.weights = panel.data(),
                                    .rows = reinterpret_cast<const uint8_t*>(x.data()),
                                    .row_scales = row_scales.data(),
                                    .num_rows = rows,
                                    .k = k,
                                    .group_scales = scales.data(),
                                    .piece = piece,
                                    .pieces_of_group = pieces_of_group,
                                    .has_offsets = has_offsets,
                                    .row_sums = row_sums.data(),
                                    .bias = has_bias ? bias.data() : nullptr,
                                    .out = out.data(),
                                    .out_stride = stride,
                                    .valid = valid});
          SCOPED_TRACE(::testing::Message() << "k=" << k << " in " << piece);
          ASSERT_NO_FATAL_FAILURE(compare(out, rows, valid, [&](int r, int lane) {
            float want = 0;
            for (int64_t p = 0; p < pieces; ++p) {
              int32_t sum = 0, of_row = 0;
              for (int64_t i = p * piece; i < std::min(k, (p + 1) * piece); ++i) {
                sum += (codes[lane * k + i] - 8) * x[r * k + i];
                of_row += x[r * k + i];
              }
              const float* const of_group = &scales[p / pieces_of_group * stride_of_group + lane];
              want += static_cast<float>(sum) * of_group[0];
              if (has_offsets) want += static_cast<float>(of_row) * of_group[kPanel];
            }
            return want * row_scales[r] + (has_bias ? bias[lane] : 0.0f);
          }));
        }
      }
    }
  }
}

TEST(ChooseDots, NeverTakesWiderRegistersThanTheKernels) {
  EXPECT_STREQ(choose_dots(choose_kernels("generic")).name, "generic");
  EXPECT_STREQ(runnable_dots().front()->name, "generic");
  EXPECT_EQ(&choose_dots(choose_kernels(runnable_isas().back())), runnable_dots().back());
}

}  // namespace
}  // namespace serval::cpu
