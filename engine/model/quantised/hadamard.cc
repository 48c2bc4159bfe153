#include "engine/model/quantised/hadamard.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace serval {
namespace {

enum class Construction : uint8_t { kPaley1, kPaley2, kWilliamson };

// The first of these that divides n is taken. The rows of Williamson's four circulant blocks (which are symmetric) are the
// places of their ones, the first in the lowest bit: they are a choice among many, the tools' own (lib/utils/matmul_had.py).
struct Order {
  int64_t order;
  Construction construction;
  uint64_t blocks[4] = {};
};
constexpr Order kOrders[] = {{172, Construction::kWilliamson, {0xcf5d9baf31, 0x5f8536ca1fb, 0x6b2bd0bd4d7, 0x47a4c0325e3}},
                             {156, Construction::kWilliamson, {0x6504c320a7, 0x7130a50c8f, 0x668a425167, 0xd41db82b1}},
                             {140, Construction::kPaley1},
                             {124, Construction::kWilliamson, {0x1d2184b9, 0x1d2184b9, 0x3a995c1, 0x7c566a3f}},
                             {116, Construction::kWilliamson, {0x125dee93, 0x1da3f16f, 0x8cbf4c5, 0x18ca14c7}},
                             {108, Construction::kPaley1},
                             {60, Construction::kPaley1},
                             {52, Construction::kWilliamson, {0x9e5, 0x3f1, 0x14cb, 0x121}},
                             {36, Construction::kPaley2},
                             {28, Construction::kPaley2},
                             {20, Construction::kPaley1},
                             {12, Construction::kPaley1}};

// 1 for the square of a number modulo the prime, -1 for none, 0 for 0.
int character(int64_t a, int64_t prime) {
  a = (a % prime + prime) % prime;
  if (a == 0) return 0;
  for (int64_t x = 1; x < prime; ++x)
    if (x * x % prime == a) return 1;
  return -1;
}

// Paley (1933), of order q + 1 for a prime q = 3 modulo 4: below a row and beside a column of ones of opposite signs, minus
// the characters of differences, and ones on the diagonal.
float paley1(int64_t order, int64_t i, int64_t j) {
  if (i == j || j == 0) return 1;
  return i == 0 ? -1.0f : static_cast<float>(-character(j - i, order - 1));
}

// Of order 2 (q + 1) for q = 1 modulo 4: with the characters' matrix C and the identity, [C + I, C - I; C - I, -C - I].
float paley2(int64_t order, int64_t i, int64_t j) {
  const int64_t half = order / 2, row = i % half, column = j % half;
  const int c = row == 0 || column == 0 ? (row == column ? 0 : 1) : character(column - row, half - 1);
  const int identity = row == column ? 1 : 0;
  if (i < half) return static_cast<float>(j < half ? c + identity : c - identity);
  return static_cast<float>(j < half ? c - identity : -c - identity);
}

// Williamson (1944): [A, B, C, D; -B, A, -D, C; -C, D, A, -B; -D, -C, B, A].
float williamson(const Order& of, int64_t i, int64_t j) {
  constexpr int kBlock[4][4] = {{0, 1, 2, 3}, {1, 0, 3, 2}, {2, 3, 0, 1}, {3, 2, 1, 0}};
  constexpr int kSign[4][4] = {{1, 1, 1, 1}, {-1, 1, -1, 1}, {-1, 1, 1, -1}, {-1, -1, 1, 1}};
  const int64_t size = of.order / 4, row = i / size, column = j / size, place = (j % size - i % size + size) % size;
  const bool is_one = (of.blocks[kBlock[row][column]] >> place & 1) != 0;
  return static_cast<float>(is_one ? kSign[row][column] : -kSign[row][column]);
}

}  // namespace

std::optional<Hadamard> Hadamard::of(int64_t n) {
  if (n < 1) return std::nullopt;
  const auto* const found = std::ranges::find_if(kOrders, [&](const Order& known) { return n % known.order == 0; });
  const int64_t order = found == std::end(kOrders) ? 1 : found->order;
  if (!std::has_single_bit(static_cast<uint64_t>(n / order))) return std::nullopt;
  Hadamard matrix(n, order);
  for (int64_t at = 0; order > 1 && at < order * order; ++at) {
    const int64_t i = at / order, j = at % order;
    matrix.signs_.push_back(found->construction == Construction::kPaley1   ? paley1(order, i, j)
                            : found->construction == Construction::kPaley2 ? paley2(order, i, j)
                                                                           : williamson(*found, i, j));
  }
  return matrix;
}

void Hadamard::apply(float* x, int64_t width) const {
  const int64_t rest = n_ / order_;
  for (int64_t half = 1; half < rest; half *= 2) {
    for (int64_t i = 0; i < n_; ++i) {
      if ((i % rest & half) != 0) continue;
      float *const a = x + i * width, *const b = a + half * width;
      for (int64_t w = 0; w < width; ++w) {
        const float sum = a[w] + b[w], difference = a[w] - b[w];
        a[w] = sum;
        b[w] = difference;
      }
    }
  }
  if (order_ > 1) {
    std::vector<float> sums(static_cast<size_t>(order_ * width));
    for (int64_t r = 0; r < rest; ++r) {
      std::ranges::fill(sums, 0.0f);
      for (int64_t i = 0; i < order_; ++i) {
        for (int64_t j = 0; j < order_; ++j) {
          const float sign = signs_[i * order_ + j];
          for (int64_t w = 0; w < width; ++w) sums[i * width + w] += sign * x[(j * rest + r) * width + w];
        }
      }
      for (int64_t i = 0; i < order_; ++i) std::copy_n(sums.begin() + i * width, width, x + (i * rest + r) * width);
    }
  }
  const float over_root = 1 / std::sqrt(static_cast<float>(n_));
  for (int64_t i = 0; i < n_ * width; ++i) x[i] *= over_root;
}

}  // namespace serval
