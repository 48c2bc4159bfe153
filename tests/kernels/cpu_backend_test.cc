// Memory of the CPU backend: large pieces are cleared by the workers, or by a thread that nobody waits for.
#include "kernels/cpu/cpu_backend.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <optional>

namespace serval::cpu {
namespace {

constexpr size_t kLarge = (size_t{256} << 20) + 4099;  // more than what is cleared at once

bool is_zero(const Buffer& buffer) {
  const auto* const p = buffer.as<const char>();
  return std::all_of(p, p + buffer.bytes, [](char c) { return c == 0; });
}

TEST(CpuBackend, ClearsAllOfLargeMemory) {
  CpuBackend backend({.num_threads = 2});
  EXPECT_TRUE(is_zero(backend.allocate(kLarge)));
}

TEST(CpuBackend, WhatIsTouchedLaterIsZeroAndKeepsWhatIsWrittenMeanwhile) {
  CpuBackend backend({.num_threads = 2});
  const Buffer buffer = backend.reserve(kLarge);
  ASSERT_EQ(buffer.bytes, kLarge);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
  auto* const p = buffer.as<char>();
  for (size_t i = 0; i < kLarge; i += 4096) p[i] = static_cast<char>(i >> 12);
  for (size_t i = 0; i < kLarge; i += 4096) ASSERT_EQ(p[i], static_cast<char>(i >> 12)) << i;
  EXPECT_TRUE(is_zero(backend.reserve(kLarge)));
  EXPECT_TRUE(is_zero(backend.reserve(1000)));
}

TEST(CpuBackend, MayBeEndedWhileMemoryIsStillTouched) {
  std::optional<CpuBackend> backend;
  backend.emplace(DeviceConfig{.num_threads = 2});
  const Buffer buffer = backend->reserve(kLarge);
  backend.reset();
}

}  // namespace
}  // namespace serval::cpu
