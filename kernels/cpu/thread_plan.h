// How many threads compute, and where: from the CPUs this process may run on, the cores they belong to and
// the quota of its control groups. Decided once, at the start.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace serval {

struct ThreadPlan {
  int num_threads = 1;
  // Worker w runs on CPU pins[w]; empty: wherever the system puts it.
  std::vector<int> pins;
  // Whether a thread that waits for another may spin: not when threads outnumber the CPUs or the quota, where
  // it would only keep the awaited one from running.
  bool spin = true;
  std::string reason;  // of num_threads, for the log
};

// The CPUs that the calling thread may run on, ascending; never none.
std::vector<int> allowed_cpus();

// wanted > 0: so many threads. 0: one for each physical core among `cpus` (of two hyper-threads one), not
// more than whole CPUs in the quota, at least one; from four on one core is left for input and output.
//
// With `pin` workers are bound to a CPU each, neighbours on different cores, but only where they take all
// cores that they could by default: fewer threads are somebody's wish to share the machine, and two processes
// that both bound themselves to its first cores would share those. `root`: where /proc and /sys lie.
ThreadPlan plan_threads(int wanted, bool pin, const std::vector<int>& cpus,
                        const std::filesystem::path& root = "/");

}  // namespace serval
