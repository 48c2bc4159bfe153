// The noise of sampling: pure functions of (seed, position, token), the same on every device, so that a row's
// draw depends on nothing else (law 1) and the draft of a speculated step can be checked against the draw
// that would have been made without it.
//
// The generator is counter based: SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
// Generators", OOPSLA 2014, section 3.2; the finaliser is Stafford's variant 13 of MurmurHash3's) read at
// index `token` of a stream that starts where (seed, position) hash to. Streams of two positions overlap
// inside a vocabulary of 2^18 with probability about 2^-45.
//
// Gumbel-max (Gumbel 1954; Yellott 1977): argmax of log p + G with G = -log(E), E ~ Exp(1), is argmin of E /
// p, the winner of a race of exponential clocks. It is drawn in that form: E / p needs no logarithm of p, and
// E = -log(1 - u) >= u tells most tokens without a logarithm that they cannot win.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/host_device.h"

namespace serval {

SERVAL_HOST_DEVICE constexpr uint64_t mix64(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// Where the noise of one position begins. The seed is hashed first: seeds of choices differ by multiples of
// the stream's own step.
SERVAL_HOST_DEVICE constexpr uint64_t noise_stream(uint64_t seed, int64_t position) {
  return mix64(mix64(seed + 0x9e3779b97f4a7c15ull) ^
               mix64(static_cast<uint64_t>(position) + 0xd1342543de82ef95ull));
}

inline constexpr double kSmallestUniform = 0x1p-54;

SERVAL_HOST_DEVICE constexpr uint64_t token_bits(uint64_t stream, int32_t token) {
  return mix64(stream + (static_cast<uint64_t>(token) + 1) * 0x9e3779b97f4a7c15ull);
}

// Uniform on a grid of 2^53 points inside (0, 1): never 0, never 1, no rounding.
SERVAL_HOST_DEVICE constexpr double token_uniform(uint64_t stream, int32_t token) {
  return static_cast<double>(static_cast<int64_t>(token_bits(stream, token) >> 11)) * 0x1p-53 +
         kSmallestUniform;
}

// The time of an exponential clock of rate 1 from its uniform; at least the uniform itself.
SERVAL_HOST_DEVICE double exponential_time(double uniform) {
  return -std::log1p(-uniform);
}

// G of the Gumbel-max form: what sampling adds to logit / temperature.
SERVAL_HOST_DEVICE double gumbel_noise(uint64_t seed, int64_t position, int32_t token) {
  return -std::log(exponential_time(token_uniform(noise_stream(seed, position), token)));
}

inline constexpr double kNever = std::numeric_limits<double>::infinity();

// The race of exponential clocks: the token whose clock of rate p rings first, the lower id of equal times.
class Race {
 public:
  SERVAL_HOST_DEVICE Race(uint64_t seed, int64_t position) : stream_(noise_stream(seed, position)) {}

  // Returns whether the token leads now.
  SERVAL_HOST_DEVICE bool enter(float p, int32_t token) {
    const double uniform = token_uniform(stream_, token);
    if (uniform > best_ * p) return false;
    const double time = exponential_time(uniform) / p;
    if (time > best_ || (time == best_ && token > token_)) return false;
    best_ = time;
    token_ = token;
    return true;
  }
  // False only where enter() would refuse. In single precision, for devices that are slow in double: the
  // uniform's first 24 bits are not above it, and a millionth covers the rounding of the other side.
  SERVAL_HOST_DEVICE bool may_enter(float p, int32_t token) const {
    const auto first_bits = static_cast<float>(static_cast<int32_t>(token_bits(stream_, token) >> 40));
    return first_bits * 0x1p-24f <= limit() * p;
  }
  SERVAL_HOST_DEVICE float limit() const { return static_cast<float>(best_) * 1.000001f; }
  SERVAL_HOST_DEVICE uint64_t stream() const { return stream_; }
  // Below this logarithm of p no token can still win.
  SERVAL_HOST_DEVICE float hopeless_log_p() const {
    return static_cast<float>(std::log(kSmallestUniform / best_));
  }
  SERVAL_HOST_DEVICE int32_t winner() const { return token_; }
  SERVAL_HOST_DEVICE double time() const { return best_; }

 private:
  uint64_t stream_;
  double best_ = kNever;
  int32_t token_ = -1;
};

}  // namespace serval
