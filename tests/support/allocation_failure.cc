#include "tests/support/allocation_failure.h"

#include <pthread.h>

#include <atomic>
#include <cstring>
#include <new>

#include "tests/support/replaced_new.h"

namespace {

// A thread may still look at these when the next failure is set up.
std::atomic<const char*> name_to_fail{""};
std::atomic<bool> armed{false};
std::atomic<int64_t> seen{0}, failed{0};
std::atomic<int64_t> first_to_fail{0}, count_to_fail{0};
std::atomic<size_t> least_to_fail{0};

bool fails(std::size_t bytes) {
  if (!armed.load(std::memory_order_acquire) || bytes < least_to_fail) return false;
  char name[16] = "";
  pthread_getname_np(pthread_self(), name, sizeof(name));
  if (std::strcmp(name, name_to_fail) != 0) return false;
  const int64_t number = seen.fetch_add(1) + 1;
  if (number < first_to_fail || number - first_to_fail >= count_to_fail) return false;
  failed.fetch_add(1);
  return true;
}

void before_allocating(std::size_t bytes) {
  if (fails(bytes)) throw std::bad_alloc();
}

}  // namespace

namespace serval::testing {

AllocationFailure::AllocationFailure(const char* thread_name, int64_t first, int64_t count,
                                     size_t least_bytes) {
  name_to_fail = thread_name;
  first_to_fail = first;
  count_to_fail = count;
  least_to_fail = least_bytes;
  seen = failed = 0;
  armed.store(true, std::memory_order_release);
}
AllocationFailure::~AllocationFailure() {
  armed = false;
}
int64_t AllocationFailure::num_failed() const {
  return failed;
}

}  // namespace serval::testing
