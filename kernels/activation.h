// The functions between two products of a feed-forward, by name.
#pragma once

#include <cstdint>

namespace serval {

// kGelu: x times the normal distribution function; kGeluTanh: its approximation by tanh (both Hendrycks and
// Gimpel 2016, section 2). Tables by activation keep their rows in this order.
enum class Activation : uint8_t { kSilu, kGeluTanh, kGelu, kRelu };
inline constexpr int kNumActivations = 4;

}  // namespace serval
