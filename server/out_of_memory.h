// What to do where memory runs out: fail the request it was for, and never lose an end that somebody waits
// for.
#pragma once

#include <chrono>
#include <new>
#include <thread>

namespace serval {

// Runs `work` until there was memory for it. For what has to happen whatever it costs: telling an end, giving
// back what a request held. `work` may run in part and then again. Blocks its thread meanwhile.
template <class Work>
auto until_memory(Work&& work) {
  for (;;) {
    try {
      return work();
    } catch (const std::bad_alloc&) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
}

}  // namespace serval
