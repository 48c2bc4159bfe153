#include "kernels/cpu/choice.h"

#include <bit>

namespace serval::cpu {
namespace {

// A number that is the larger the larger the score; zeros are equal.
uint32_t order_of(float score) {
  const auto bits = std::bit_cast<uint32_t>(score + 0.0f);
  return (bits >> 31 != 0) ? ~bits : bits | 0x80000000u;
}

}  // namespace

// Digit by digit, the value that the last of them has is found, then all above it are taken, and as many of it as are left.
void choose_best(const float* scores, int count, int top_k, uint64_t* chosen) {
  uint32_t prefix = 0, known = 0;  // of that value, and which of its bits
  int left = top_k;
  for (int shift = 24; shift >= 0; shift -= 8) {
    int with[256] = {};
    for (int i = 0; i < count; ++i) {
      const uint32_t order = order_of(scores[i]);
      if ((order & known) == prefix) ++with[order >> shift & 255];
    }
    int digit = 255;
    for (; with[digit] < left; --digit) left -= with[digit];
    prefix |= static_cast<uint32_t>(digit) << shift;
    known |= 255u << shift;
  }
  for (int i = 0; i < count; ++i) {
    const uint32_t order = order_of(scores[i]);
    if (order > prefix || (order == prefix && left-- > 0)) chosen[i / 64] |= uint64_t{1} << i % 64;
  }
}

}  // namespace serval::cpu
