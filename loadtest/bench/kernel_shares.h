// What each inner loop of the CPU backend reaches of the best loop of its instruction set, which is the probe
// that kernel_table.h has for it. One thread, everything in the second-level cache, so that nothing but the
// loop itself is measured.
#pragma once

#include <string>
#include <vector>

namespace serval {

struct KernelShare {
  std::string kernel;
  bool is_tall_product = false;  // rows enough that nothing but arithmetic should take time
  double gflops = 0;
  double share = 0;  // of the probe
};

// isa: one of cpu::runnable_isas(). Takes some seconds. Kernel and probe run in turns, many short ones, each
// timed by the thread's own time; the best turn of the one is compared with the best of the other, since
// other programs can only slow a turn (they take the cache, and half of a core that is a hyper-thread).
std::vector<KernelShare> measure_kernel_shares(const std::string& isa);

}  // namespace serval
