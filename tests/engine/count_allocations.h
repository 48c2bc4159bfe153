// What an engine's thread allocates while it serves (allocation_counter.cc is to be among the sources).
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "tests/engine/engine_driver.h"
#include "tests/support/allocation_counter.h"

namespace serval::testing {

// What the engine's thread allocates from its first step on, where all requests come at once; and what the scheduler has done.
struct Counted {
  int64_t allocations;
  SchedulerStats stats;
};
inline Counted count_allocations(const std::filesystem::path& model, const EngineConfig& config, std::vector<Request> requests,
                                 std::unique_ptr<Speculator> speculator = nullptr) {
  std::optional<AllocationCounter> counter;
  std::atomic<int64_t> allocations = 0;
  std::mutex submitting;
  EngineDriver driver(model, config, EngineDriver::Order::kAsTheDeviceLikes, std::move(speculator));
  driver.on_step([&] {
    const std::lock_guard wait(submitting);
    if (!counter) counter.emplace();
    allocations = counter->count_on_this_thread();
  });
  std::vector<RequestId> ids;
  {
    const std::lock_guard lock(submitting);
    for (Request& request : requests) ids.push_back(driver.submit(std::move(request)));
  }
  for (const RequestId id : ids) driver.wait(id);
  return {allocations, driver.stats().scheduler};
}

}  // namespace serval::testing
