// Counts heap allocations of the whole process while a counter lives, by replacing the global operator new
// (allocation_counter.cc, listed among the sources of the test that wants it). One counter at a time.
#pragma once

#include <cstdint>

namespace serval::testing {

class AllocationCounter {
 public:
  AllocationCounter();
  ~AllocationCounter();
  // Of every thread, or of the thread that made the counter alone.
  int64_t count() const;
  int64_t count_on_this_thread() const;
  // Asked for by every thread; what was freed again is not taken off.
  int64_t bytes() const;
};

}  // namespace serval::testing
