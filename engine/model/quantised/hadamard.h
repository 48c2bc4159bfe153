// Hadamard matrices as QuIP# takes them for the sides of a matrix: of n rows, that of Sylvester where n is a power of two, else the
// Kronecker product of one of a given order and Sylvester's of the rest.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace serval {

class Hadamard {
 public:
  // Nothing where no order fits n.
  static std::optional<Hadamard> of(int64_t n);

  // Of x [n, width]: each column by the matrix, over the root of n.
  void apply(float* x, int64_t width) const;

 private:
  Hadamard(int64_t n, int64_t order) : n_(n), order_(order) {}

  int64_t n_, order_;
  std::vector<float> signs_;  // [order, order]; empty of order 1
};

}  // namespace serval
