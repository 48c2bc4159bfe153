// The fork-join pool: every task once, results visible, sleeping workers woken, one float control for all.
#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <chrono>
#include <ctime>
#include <memory>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace serval {
namespace {

TEST(ThreadPool, RunsEveryTaskOnceAndItsWritesAreVisible) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    std::vector<int> hits(1000);  // plain ints: a race or a lost write shows, under TSan loudly
    for (int round = 1; round <= 300; ++round) {
      const int count = 1 + round * 37 % 1000;
      for (int& h : hits) h = 0;
      pool.for_each(count, [&](int, int64_t i) { ++hits[i]; });
      for (int i = 0; i < 1000; ++i) ASSERT_EQ(hits[i], i < count ? 1 : 0) << threads << " " << round;
    }
  }
}

TEST(ThreadPool, GivesWorkersDistinctNumbers) {
  ThreadPool pool(3);
  std::vector<int64_t> sums(3);  // one slot a worker, unsynchronised
  for (int round = 0; round < 200; ++round)
    pool.for_each(64, [&](int worker, int64_t i) { sums.at(worker) += i; });
  EXPECT_EQ(sums[0] + sums[1] + sums[2], 200 * 64 * 63 / 2);
}

TEST(ThreadPool, DoesNothingForNoTasks) {
  ThreadPool pool(2);
  pool.for_each(0, [](int, int64_t) { FAIL(); });
}

TEST(ThreadPool, WakesWorkersThatFellAsleep) {
  ThreadPool pool(2);
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // longer than they spin
    std::vector<int> hits(50);
    pool.for_each(50, [&](int, int64_t i) { ++hits[i]; });
    for (const int h : hits) ASSERT_EQ(h, 1);
  }
}

// Two tasks that wait for each other can only end when two threads run them.
TEST(ThreadPool, RunsTasksAtTheSameTime) {
  ThreadPool pool(2);
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> arrived{0};
    pool.for_each(2, [&](int, int64_t) {
      arrived.fetch_add(1);
      while (arrived.load() < 2) std::this_thread::yield();
    });
    ASSERT_EQ(arrived.load(), 2);
  }
}

TEST(ThreadPool, SleepsWhenIdle) {
  ThreadPool pool(4);
  pool.for_each(8, [](int, int64_t) {});
  const auto cpu_time = [] {
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
  };
  const double before = cpu_time();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_LT(cpu_time() - before, 0.1);  // three idle workers that span would burn up to 0.9
}

TEST(ThreadPool, ServesOneCallerAfterAnother) {
  auto pool = std::make_unique<ThreadPool>(2);
  for (int round = 0; round < 20; ++round) {
    std::thread caller([&] {
      int64_t sums[2] = {0, 0};
      pool->for_each(100, [&](int worker, int64_t i) { sums[worker] += i; });
      EXPECT_EQ(sums[0] + sums[1], 4950);
    });
    caller.join();
  }
}

TEST(ThreadPool, LeavesTheCallerFree) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  ThreadPool pool;
  pool.for_each(10, [](int, int64_t) {});
  cpu_set_t after;
  ASSERT_EQ(sched_getaffinity(0, sizeof after, &after), 0);
  EXPECT_TRUE(CPU_EQUAL(&before, &after));
}

// The CPUs that worker 1 of two may run on.
std::vector<int> cpus_of_second_worker(ThreadPool& pool) {
  std::vector<int> cpus;
  for (int round = 0; round < 50 && cpus.empty(); ++round) {
    std::atomic<int> arrived{0};
    pool.for_each(2, [&](int worker, int64_t) {
      if (worker == 1) cpus = allowed_cpus();
      arrived.fetch_add(1);
      while (arrived.load() < 2) std::this_thread::yield();
    });
  }
  return cpus;
}

TEST(ThreadPool, PinsWorkersToTheCpusOfThePlan) {
  const std::vector<int> cpus = allowed_cpus();
  if (cpus.size() < 2) GTEST_SKIP() << "one CPU only";
  ThreadPlan plan{.num_threads = 2, .pins = {cpus[0], cpus[1]}};
  ThreadPool pinned(plan);
  EXPECT_EQ(cpus_of_second_worker(pinned), std::vector<int>{cpus[1]});
  plan.pins.clear();
  ThreadPool floating(plan);
  EXPECT_EQ(cpus_of_second_worker(floating), cpus);
}

#if defined(__x86_64__)
TEST(ThreadPool, RunsTasksUnderOneFloatControlWhateverTheCallerSet) {
  ThreadPool pool(3);
  const unsigned mine = _mm_getcsr();
  constexpr unsigned kFlushToZero = 0x8040;
  _mm_setcsr(mine | kFlushToZero);
  for (const int64_t tasks : {1, 30}) {
    pool.for_each(tasks, [](int, int64_t) { EXPECT_EQ(_mm_getcsr() & ~0x3fu, 0x1f80u); });
  }
  EXPECT_EQ(_mm_getcsr() & kFlushToZero, kFlushToZero) << "the caller's own control must come back";
  _mm_setcsr(mine);
}
#endif

}  // namespace
}  // namespace serval
