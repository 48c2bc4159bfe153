// Matrices of Hadamard against the tables of QuIP#'s tools (lib/utils/matmul_had.py), of which a hash over all signs is kept.
#include "engine/model/quantised/hadamard.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <utility>

namespace serval::testing {
namespace {

// [n, n]
std::vector<float> matrix_of(int64_t n) {
  std::vector<float> matrix(static_cast<size_t>(n * n));
  for (int64_t i = 0; i < n; ++i) matrix[i * n + i] = 1;
  Hadamard::of(n)->apply(matrix.data(), n);
  return matrix;
}

TEST(HadamardMatrices, AreThoseOfTheTables) {
  constexpr std::pair<int64_t, uint64_t> kTables[] = {
      {12, 0xff6e253185ffa9ba},  {20, 0xae0a8cc22381d736},  {28, 0x5bab695be8d52ff4},  {36, 0xb27dd7dad331b570},
      {52, 0x57d95ce785724b72},  {60, 0x7ebe8b055fa054a2},  {108, 0xa740255214fe918a}, {116, 0x1e476c8bccf7b07a},
      {124, 0x9175b68f4a8b214e}, {140, 0x74aa89ce6f63bf7a}, {156, 0x7e911f20e4c0736},  {172, 0xf2f0d115d46ac0b6}};
  for (const auto& [order, expected] : kTables) {
    uint64_t hash = 0;
    for (const float x : matrix_of(order)) {
      EXPECT_NEAR(std::abs(x) * std::sqrt(static_cast<float>(order)), 1, 1e-5);
      hash = hash * 31 + (x > 0 ? 1 : 0);
    }
    EXPECT_EQ(hash, expected) << order;
  }
}

// Sylvester's stands inside: its sign is the parity of the bits that row and column have in common.
TEST(HadamardMatrices, AreProductsWithThatOfAPowerOfTwo) {
  const std::vector<float> outer = matrix_of(12), whole = matrix_of(48);
  for (int64_t i = 0; i < 48; ++i) {
    for (int64_t j = 0; j < 48; ++j) {
      const float sign = std::popcount(static_cast<uint64_t>(i % 4 & j % 4)) % 2 == 0 ? 1.0f : -1.0f;
      EXPECT_NEAR(whole[i * 48 + j] * 2, outer[i / 4 * 12 + j / 4] * sign, 1e-6) << i << " " << j;
    }
  }
  for (const int64_t n : {int64_t{0}, int64_t{7}, int64_t{36 * 5}, int64_t{24 * 7}}) EXPECT_FALSE(Hadamard::of(n).has_value()) << n;
}

}  // namespace
}  // namespace serval::testing
