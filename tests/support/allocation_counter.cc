#include "tests/support/allocation_counter.h"

#include <atomic>
#include <cstddef>

#include "tests/support/replaced_new.h"

namespace {

std::atomic<bool> counting{false};
std::atomic<int64_t> allocations{0};
std::atomic<int64_t> allocated_bytes{0};
thread_local int64_t allocations_here = 0;

void before_allocating(std::size_t bytes) {
  if (!counting.load(std::memory_order_relaxed)) return;
  allocations.fetch_add(1, std::memory_order_relaxed);
  allocated_bytes.fetch_add(static_cast<int64_t>(bytes), std::memory_order_relaxed);
  ++allocations_here;
}

}  // namespace

namespace serval::testing {

AllocationCounter::AllocationCounter() {
  allocations = 0;
  allocated_bytes = 0;
  allocations_here = 0;
  counting = true;
}
AllocationCounter::~AllocationCounter() {
  counting = false;
}
int64_t AllocationCounter::count() const {
  return allocations;
}
int64_t AllocationCounter::count_on_this_thread() const {
  return allocations_here;
}

int64_t AllocationCounter::bytes() const {
  return allocated_bytes;
}

}  // namespace serval::testing
