#include "kernels/cpu/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <chrono>
#include <memory>

#include "kernels/base/check.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace serval {
namespace {

// Longer than the gap between two operators of one forward pass, far shorter than the gap between two
// requests.
constexpr auto kSpinTime = std::chrono::microseconds(60);
constexpr int kSpinsPerClockRead = 32;

void pause_cpu() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// Spins until done() or the spin time is over; returns done().
template <class Done>
bool spin(const Done& done) {
  const auto deadline = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < kSpinsPerClockRead; ++i) {
      if (done()) return true;
      pause_cpu();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return false;
}

// Round to nearest, denormals kept, exceptions masked: the same bits from the same inputs on whichever thread
// a task lands.
class ScopedFloatControl {
 public:
#if defined(__x86_64__)
  ScopedFloatControl() : saved_(_mm_getcsr()) {
    if ((saved_ & ~kStickyFlags) != kControl) _mm_setcsr(kControl);
  }
  ~ScopedFloatControl() {
    if ((saved_ & ~kStickyFlags) != kControl) _mm_setcsr(saved_);
  }

 private:
  static constexpr unsigned kControl = 0x1f80;
  static constexpr unsigned kStickyFlags = 0x3f;
  unsigned saved_;
#else
  ScopedFloatControl() {}
#endif
};

// A container may forbid it; the thread then floats, which costs speed and nothing else.
void bind(std::thread& thread, int cpu) {
  const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(cpu + 1),
                                                             [](cpu_set_t* s) { CPU_FREE(s); });
  const size_t bytes = CPU_ALLOC_SIZE(cpu + 1);
  CPU_ZERO_S(bytes, set.get());
  CPU_SET_S(cpu, bytes, set.get());
  pthread_setaffinity_np(thread.native_handle(), bytes, set.get());
}

}  // namespace

ThreadPool::ThreadPool(const ThreadPlan& plan) : num_threads_(plan.num_threads), spin_(plan.spin) {
  for (int worker = 1; worker < num_threads_; ++worker) {
    threads_.emplace_back([this, worker] { worker_loop(worker); });
    if (!plan.pins.empty()) bind(threads_.back(), plan.pins[worker]);
  }
}

ThreadPool::ThreadPool(int num_threads, bool pin)
    : ThreadPool(plan_threads(num_threads, pin, allowed_cpus())) {}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  wake_.fetch_add(1);
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

// Claims and runs one task; false when none is left to claim.
bool ThreadPool::work_on_one(int worker) {
  int64_t left = unclaimed_.load(std::memory_order_relaxed);
  do {
    if (left <= 0) return false;
  } while (!unclaimed_.compare_exchange_weak(left, left - 1, std::memory_order_acquire,
                                             std::memory_order_relaxed));
  call_(context_, worker, count_ - left);
  if (unfinished_.fetch_sub(1) == 1 && caller_sleeps_.load()) {
    finished_.fetch_add(1);
    finished_.notify_one();
  }
  return true;
}

void ThreadPool::run(int64_t count, Call call, const void* context) {
  if (count <= 0) return;
  const ScopedFloatControl float_control;
  if (count == 1 || num_threads_ == 1) {
    for (int64_t i = 0; i < count; ++i) call(context, 0, i);
    return;
  }
  SERVAL_DCHECK(unfinished_.load() == 0, "a second caller, or a call from inside a task");
  call_ = call;
  context_ = context;
  count_ = count;
  unfinished_.store(count, std::memory_order_relaxed);
  unclaimed_.store(count);  // publishes the job; ordered before the look at sleepers_, as a sleeper orders
                            // its own two the other way
  if (sleepers_.load() > 0) {
    wake_.fetch_add(1);
    wake_.notify_all();
  }
  while (work_on_one(0)) {
  }
  const auto finished = [this] { return unfinished_.load(std::memory_order_acquire) == 0; };
  if (finished() || (spin_ && spin(finished))) return;
  caller_sleeps_.store(true);
  for (;;) {
    const uint32_t seen = finished_.load();
    if (unfinished_.load() == 0) break;
    finished_.wait(seen);
  }
  caller_sleeps_.store(false);
}

void ThreadPool::worker_loop(int worker) {
  const ScopedFloatControl float_control;
  const auto has_work = [this] { return unclaimed_.load(std::memory_order_relaxed) > 0; };
  while (!stop_.load()) {
    if (work_on_one(worker)) continue;
    if (spin_ && spin(has_work)) continue;
    const uint32_t seen = wake_.load();
    sleepers_.fetch_add(1);
    if (unclaimed_.load() <= 0 && !stop_.load()) wake_.wait(seen);
    sleepers_.fetch_sub(1);
  }
}

}  // namespace serval
