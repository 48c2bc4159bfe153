// Makes allocations fail where a test wants it, by replacing the global operator new (allocation_failure.cc,
// listed among the sources of the test that wants it). One at a time.
#pragma once

#include <cstddef>
#include <cstdint>

namespace serval::testing {

class AllocationFailure {
 public:
  // On threads of that name (as the kernel shows it): of the allocations of at least `least_bytes`, those
  // from the `first`-th on fail, `count` of them.
  AllocationFailure(const char* thread_name, int64_t first, int64_t count, size_t least_bytes = 0);
  ~AllocationFailure();  // none fails any more
  int64_t num_failed() const;
};

}  // namespace serval::testing
