// The functions between two products of a feed-forward, by name.
#pragma once

#include <cstdint>

namespace serval {

// kGelu: x times the normal distribution function; kGeluTanh, kGeluSigmoid: its approximations by tanh and by
// x * sigmoid(1.702 x) (all Hendrycks and Gimpel 2016, section 2). kRelu2: the square of kRelu (So et al. 2021).
// kIdentity: x, of a plain product.
// Tables by activation keep their rows in this order.
enum class Activation : uint8_t { kSilu, kGeluTanh, kGelu, kRelu, kRelu2, kGeluSigmoid, kSigmoid, kIdentity };
inline constexpr int kNumActivations = 8;

}  // namespace serval
