// Memory of the CPU backend: large pieces are cleared by the workers, in rounds that can be watched and given
// up.
#include "kernels/cpu/cpu_backend.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

namespace serval::cpu {
namespace {

constexpr size_t kLarge = (size_t{256} << 20) + 4099;  // one byte more than a round, and some

TEST(CpuBackend, TellsHowFarItIsWithLargeMemoryAndClearsAllOfIt) {
  CpuBackend backend({.num_threads = 2});
  std::vector<std::pair<size_t, size_t>> told;
  const Buffer buffer =
      backend.allocate(kLarge, [&](size_t done, size_t total) { told.emplace_back(done, total); });
  EXPECT_EQ(told, (std::vector<std::pair<size_t, size_t>>{{size_t{256} << 20, kLarge}, {kLarge, kLarge}}));
  const auto* p = buffer.as<const char>();
  EXPECT_TRUE(std::all_of(p, p + kLarge, [](char c) { return c == 0; }));

  told.clear();
  backend.allocate(1 << 20, [&](size_t done, size_t total) { told.emplace_back(done, total); });
  EXPECT_TRUE(told.empty()) << "what takes no time is not worth a word";
}

TEST(CpuBackend, GivesUpWhenItsProgressThrows) {
  CpuBackend backend({.num_threads = 2});
  int calls = 0;
  EXPECT_THROW(backend.allocate(kLarge,
                                [&](size_t, size_t) {
                                  ++calls;
                                  throw std::runtime_error("a signal came");
                                }),
               std::runtime_error);
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace serval::cpu
