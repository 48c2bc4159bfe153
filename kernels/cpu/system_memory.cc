#include "kernels/cpu/system_memory.h"

#include <algorithm>
#include <fstream>
#include <string>

#include "kernels/cpu/control_group.h"

namespace serval {

size_t available_memory_bytes(const std::filesystem::path& root) {
  size_t machine = kNoMemoryLimit;
  std::ifstream file(root / "proc/meminfo");
  std::string key;
  for (size_t kib = 0; file >> key >> kib; file.ignore(80, '\n'))
    if (key == "MemAvailable:") machine = kib * 1024;
  return std::min(machine, control_group_memory(root));
}

}  // namespace serval
