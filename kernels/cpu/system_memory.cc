#include "kernels/cpu/system_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace serval {
namespace {

constexpr size_t kUnlimited = std::numeric_limits<size_t>::max();

// The number after `key` at the start of a line; `fallback` when the file or the key is not there.
size_t read_field(const char* path, const std::string& key, size_t fallback) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    try {
      return std::stoull(line.substr(key.size()));
    } catch (const std::exception&) {
      return fallback;  // "max"
    }
  }
  return fallback;
}

}  // namespace

size_t available_memory_bytes() {
  const size_t machine_kib = read_field("/proc/meminfo", "MemAvailable:", kUnlimited / 1024);
  const size_t limit = read_field("/sys/fs/cgroup/memory.max", "", kUnlimited);
  if (limit == kUnlimited) return machine_kib * 1024;
  const size_t used = read_field("/sys/fs/cgroup/memory.current", "", 0);
  const size_t cache = read_field("/sys/fs/cgroup/memory.stat", "file ", 0);
  const size_t held = used - std::min(used, cache);
  return std::min(machine_kib * 1024, limit - std::min(limit, held));
}

}  // namespace serval
