// How much memory this process could still take.
#pragma once

#include <cstddef>

namespace serval {

// The smaller of what the machine has available (/proc/meminfo's MemAvailable) and what this process's
// control group leaves it (cgroup v2 memory.max, its page cache counted as free).
size_t available_memory_bytes();

}  // namespace serval
