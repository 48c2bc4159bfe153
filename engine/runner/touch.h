// Makes planned memory resident at start-up, so that a plan that does not fit fails then and not under load.
#pragma once

#include <cstddef>

namespace serval {

// Writes zeros to every page of memory that is still all zeros.
inline void touch(void* memory, size_t bytes) {
  constexpr size_t kPage = 4096;
  auto* const p = static_cast<volatile std::byte*>(memory);
  for (size_t i = 0; i < bytes; i += kPage) p[i] = std::byte{0};
  if (bytes > 0) p[bytes - 1] = std::byte{0};
}

}  // namespace serval
