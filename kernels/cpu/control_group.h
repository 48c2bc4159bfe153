// What the control groups of this process (cgroup v2 and v1) leave it: files under /proc and /sys, read once
// at the start. `root` is where those two lie, "/" but in tests. A file that is not there limits nothing.
#pragma once

#include <cstddef>
#include <filesystem>
#include <limits>

namespace serval {

inline constexpr size_t kNoMemoryLimit = std::numeric_limits<size_t>::max();

// CPUs' worth of time that this process's group and its ancestors may use, the smallest quota of them (v2
// cpu.max, v1 cpu.cfs_quota_us); 0: no quota.
double cpu_quota(const std::filesystem::path& root = "/");

// Bytes that this process's group and its ancestors may still take (v2 memory.max, v1
// memory.limit_in_bytes), page cache counted as free; kNoMemoryLimit without a limit.
size_t control_group_memory(const std::filesystem::path& root = "/");

}  // namespace serval
