#include "kernels/cpu/control_group.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

namespace serval {
namespace {

namespace fs = std::filesystem;

// The first word of the file as a number; nothing when there is no such file or it says "max".
std::optional<double> read_number(const fs::path& path) {
  std::ifstream file(path);
  double value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

// The number after `key` in a file of "key number" lines.
double read_entry(const fs::path& path, const std::string& key) {
  std::ifstream file(path);
  std::string name;
  double value = 0;
  while (file >> name >> value)
    if (name == key) return value;
  return 0;
}

bool lists(const std::string& controllers, const std::string& controller) {
  std::istringstream names(controllers);
  for (std::string name; std::getline(names, name, ',');)
    if (name == controller) return true;
  return false;
}

// Folders of the groups that bind this process, from its own up to the mount. Inside a container the path
// that the kernel names may lie outside of what is mounted; then the mount alone is the group.
std::vector<fs::path> group_folders(const fs::path& root, const std::string& controller) {
  std::vector<fs::path> folders;
  const auto add = [&](const fs::path& mount, const fs::path& group) {
    for (fs::path path = group.relative_path(); !path.empty(); path = path.parent_path())
      if (std::find(path.begin(), path.end(), "..") == path.end()) folders.push_back(mount / path);
    folders.push_back(mount);
  };
  const fs::path mounts = root / "sys/fs/cgroup";
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // "number:controllers:/path"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const fs::path group = line.substr(second + 1);
    if (controllers.empty()) {  // version 2; beside version 1 it is mounted below, without these controllers
      add(mounts, group);
    } else if (lists(controllers, controller)) {
      add(mounts / controllers, group);
      if (controllers != controller) add(mounts / controller, group);
    }
  }
  if (folders.empty()) folders.push_back(mounts);
  return folders;
}

// Version 2 writes "quota period", version 1 a file each; "max" and -1 are no quota. 0: none here.
double quota_of(const fs::path& group) {
  double quota = 0, period = 0;
  if (std::ifstream v2(group / "cpu.max"); v2 >> quota >> period) return period > 0 ? quota / period : 0;
  quota = read_number(group / "cpu.cfs_quota_us").value_or(-1);
  period = read_number(group / "cpu.cfs_period_us").value_or(0);
  return quota > 0 && period > 0 ? quota / period : 0;
}

struct MemoryFiles {
  const char* limit;
  const char* used;
  const char* cache;  // of memory.stat, with the groups below
};
constexpr MemoryFiles kMemoryFiles[] = {{"memory.max", "memory.current", "file"},
                                        {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"}};

}  // namespace

double cpu_quota(const fs::path& root) {
  double smallest = 0;
  for (const fs::path& group : group_folders(root, "cpu")) {
    const double quota = quota_of(group);
    if (quota > 0 && (smallest == 0 || quota < smallest)) smallest = quota;
  }
  return smallest;
}

size_t control_group_memory(const fs::path& root) {
  constexpr double kUnlimited = 0x1p62;  // version 1 writes the largest multiple of a page
  double left = kUnlimited;
  for (const fs::path& group : group_folders(root, "memory")) {
    for (const MemoryFiles& files : kMemoryFiles) {
      const std::optional<double> limit = read_number(group / files.limit);
      if (!limit || *limit >= kUnlimited) continue;
      const double used = read_number(group / files.used).value_or(0);
      const double held = std::max(0.0, used - read_entry(group / "memory.stat", files.cache));
      left = std::min(left, std::max(0.0, *limit - held));
    }
  }
  return left < kUnlimited ? static_cast<size_t>(left) : kNoMemoryLimit;
}

}  // namespace serval
