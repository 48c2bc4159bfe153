// Fork-join over the cores of one device. The calling thread is worker 0 and works too; the other workers are
// threads, pinned to one core each where the plan says so. Tasks are claimed one at a time, so a worker that
// sleeps late or lost its core (a shared machine) delays a call by the one task it holds at most, and by
// nothing when it holds none. Knows nothing of tensors.
//
// Who computes a task never shows in its result: tasks write disjoint outputs, and every thread runs them
// under the same floating point control word. Between calls a worker spins for some tens of microseconds,
// then sleeps: an idle server burns no core.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

#include "kernels/cpu/thread_plan.h"

namespace serval {

class ThreadPool {
 public:
  // The caller is never pinned: its affinity would leak into every thread it starts later.
  explicit ThreadPool(const ThreadPlan& plan);
  // plan_threads() of this machine.
  explicit ThreadPool(int num_threads = 0, bool pin = true);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls task(worker, index) once for every index in [0, count), worker in [0, num_threads) being unique
  // among the calls that run at one time (so it may index per-worker scratch); returns when all have
  // returned, their writes visible. One caller at a time, not from inside a task. Tasks must not throw.
  // Allocates nothing.
  template <class Task>
  void for_each(int64_t count, const Task& task) {
    run(
        count,
        [](const void* context, int worker, int64_t index) {
          (*static_cast<const Task*>(context))(worker, index);
        },
        &task);
  }

 private:
  using Call = void (*)(const void* context, int worker, int64_t index);
  void run(int64_t count, Call call, const void* context);
  void worker_loop(int worker);
  bool work_on_one(int worker);

  // The job in flight. Written by the caller while no task is claimed; read by a worker only between its
  // claim and its report, which is when the caller waits.
  Call call_ = nullptr;
  const void* context_ = nullptr;
  int64_t count_ = 0;

  // Tasks not yet claimed. Counting down makes a claim safe without looking at the job first: a successful
  // decrement of a positive value can only belong to the job that is in flight.
  alignas(64) std::atomic<int64_t> unclaimed_{0};
  alignas(64) std::atomic<int64_t> unfinished_{0};
  alignas(64) std::atomic<uint32_t> wake_{0};  // bumped to wake sleeping workers
  std::atomic<int> sleepers_{0};
  alignas(64) std::atomic<uint32_t> finished_{0};  // bumped to wake a sleeping caller
  std::atomic<bool> caller_sleeps_{false};
  std::atomic<bool> stop_{false};

  int num_threads_;
  bool spin_;
  std::vector<std::thread> threads_;
};

}  // namespace serval
