#include "server/unique_id.h"

#include <cstdint>
#include <random>

namespace serval {

std::string unique_id() {
  thread_local std::mt19937_64 random = [] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device(), device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }();
  static constexpr char kHex[] = "0123456789abcdef";
  std::string id;
  id.reserve(32);
  for (int word = 0; word < 2; ++word) {
    const uint64_t bits = random();
    for (int shift = 60; shift >= 0; shift -= 4) id += kHex[(bits >> shift) & 15];
  }
  return id;
}

}  // namespace serval
