#include "kernels/cpu/thread_plan.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>

#include "kernels/cpu/control_group.h"

namespace serval {
namespace {

constexpr int kMaxCpus = 1 << 20;     // far more than Linux can be built for
constexpr int kCoresThatSpareOne = 4;  // with fewer, a core kept free costs more than it gives

// `cpus` in the order in which threads take them: one CPU of every core, then the second of those that have
// two, and so on. num_cores: how many cores there are.
std::vector<int> by_core(const std::vector<int>& cpus, const std::filesystem::path& root, int& num_cores) {
  std::map<std::string, std::vector<int>> cores;  // by the list of CPUs that share one
  std::vector<std::pair<size_t, int>> order;      // (how many of its core come before it, CPU)
  for (const int cpu : cpus) {
    const std::string name = "cpu" + std::to_string(cpu);
    std::ifstream file(root / "sys/devices/system/cpu" / name / "topology/thread_siblings_list");
    std::string siblings;
    if (!std::getline(file, siblings)) siblings = name;
    std::vector<int>& core = cores[siblings];
    order.emplace_back(core.size(), cpu);
    core.push_back(cpu);
  }
  std::sort(order.begin(), order.end());
  num_cores = static_cast<int>(cores.size());
  std::vector<int> ordered;
  for (const auto& [place, cpu] : order) ordered.push_back(cpu);
  return ordered;
}

std::string quota_text(double quota) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", quota);
  return text;
}

}  // namespace

std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
  // The kernel refuses a set smaller than its own.
  for (int size = CPU_SETSIZE; size <= kMaxCpus; size *= 2) {
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(size),
                                                               [](cpu_set_t* s) { CPU_FREE(s); });
    const size_t bytes = CPU_ALLOC_SIZE(size);
    if (sched_getaffinity(0, bytes, set.get()) == 0) {
      for (int cpu = 0; cpu < size; ++cpu)
        if (CPU_ISSET_S(cpu, bytes, set.get())) cpus.push_back(cpu);
      break;
    }
    if (errno != EINVAL) break;
  }
  if (cpus.empty()) cpus.push_back(0);
  return cpus;
}

ThreadPlan plan_threads(int wanted, bool pin, const std::vector<int>& cpus,
                        const std::filesystem::path& root) {
  int num_cores = 0;
  const std::vector<int> order = by_core(cpus, root, num_cores);
  const auto num_cpus = static_cast<int>(cpus.size());
  const double quota = cpu_quota(root);
  const int whole = quota > 0 && quota < num_cpus ? std::max(1, static_cast<int>(quota)) : num_cpus;
  const auto spare_one = [](int cores) { return cores >= kCoresThatSpareOne ? cores - 1 : cores; };

  ThreadPlan plan;
  plan.num_threads = wanted > 0 ? wanted : spare_one(std::min(num_cores, whole));
  plan.spin = plan.num_threads <= whole;
  if (pin && plan.num_threads >= spare_one(num_cores) && plan.num_threads <= num_cpus)
    plan.pins.assign(order.begin(), order.begin() + plan.num_threads);
  if (wanted > 0) {
    plan.reason = "as asked for";
  } else {
    plan.reason = std::to_string(num_cores) + " cores among " + std::to_string(num_cpus) + " allowed CPUs";
    if (whole < num_cores) plan.reason += ", a quota of " + quota_text(quota) + " CPUs";
    if (plan.num_threads < std::min(num_cores, whole)) plan.reason += ", one left for input and output";
  }
  return plan;
}

}  // namespace serval
