// How much memory this process could still take.
#pragma once

#include <cstddef>
#include <filesystem>

namespace serval {

// The smaller of what the machine has available (/proc/meminfo's MemAvailable) and what this process's
// control groups leave it. `root`: where /proc and /sys lie.
size_t available_memory_bytes(const std::filesystem::path& root = "/");

}  // namespace serval
