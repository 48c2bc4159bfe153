// The activations by their definitions, in double, for every test that compares with them.
#pragma once

#include <algorithm>
#include <cmath>
#include <iterator>

#include "kernels/activation.h"

namespace serval::testing {

inline constexpr Activation kActivations[] = {Activation::kSilu, Activation::kGeluTanh, Activation::kGelu,
                                              Activation::kRelu, Activation::kRelu2,   Activation::kGeluSigmoid,
                                              Activation::kSigmoid, Activation::kIdentity};
static_assert(std::size(kActivations) == kNumActivations);

inline double activated(Activation act, double x) {
  switch (act) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGeluTanh:
      return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::kGelu:
      return x / 2 * std::erfc(-x / std::sqrt(2.0));
    case Activation::kRelu:
      return std::max(x, 0.0);
    case Activation::kRelu2:
      return std::max(x, 0.0) * std::max(x, 0.0);
    case Activation::kGeluSigmoid:
      return x / (1 + std::exp(-1.702 * x));
    case Activation::kSigmoid:
      return 1 / (1 + std::exp(-x));
    case Activation::kIdentity:
      return x;
  }
  return 0;
}

inline double xielu_of(double x, double a, double b) {
  return (x > 0 ? a * x * x : b * (std::expm1(x) - x)) + x / 2;
}

}  // namespace serval::testing
