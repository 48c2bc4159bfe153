// How many threads compute, on machines of all kinds.
#include "kernels/cpu/thread_plan.h"

#include <sched.h>

#include <algorithm>
#include <numeric>

#include "tests/kernels/fake_machine.h"

namespace serval {
namespace {

class ThreadPlanOf : public FakeMachine {
 protected:
  // CPUs 0 .. cores * threads - 1; CPU c belongs to core c % cores, as Linux numbers most machines.
  std::vector<int> make_cpus(int cores, int threads) {
    for (int cpu = 0; cpu < cores * threads; ++cpu) {
      std::string siblings;
      for (int t = 0; t < threads; ++t)
        siblings += (t > 0 ? "," : "") + std::to_string(cpu % cores + t * cores);
      write("sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list", siblings);
    }
    std::vector<int> cpus(cores * threads);
    std::iota(cpus.begin(), cpus.end(), 0);
    return cpus;
  }
  void set_quota(const std::string& cpu_max) {
    write("proc/self/cgroup", "0::/");
    write("sys/fs/cgroup/cpu.max", cpu_max);
  }
  ThreadPlan plan(const std::vector<int>& cpus, int wanted = 0) {
    return plan_threads(wanted, true, cpus, root_);
  }
};

TEST_F(ThreadPlanOf, CountsCoresAndNotTheirHyperThreads) {
  const ThreadPlan p = plan(make_cpus(2, 2));
  EXPECT_EQ(p.num_threads, 2);
  EXPECT_EQ(p.pins, (std::vector<int>{0, 1}));
  EXPECT_EQ(p.reason, "2 cores among 4 allowed CPUs");
}

TEST_F(ThreadPlanOf, LeavesOneCoreForInputAndOutputFromFourOn) {
  EXPECT_EQ(plan(make_cpus(1, 1)).num_threads, 1);
  EXPECT_EQ(plan(make_cpus(3, 1)).num_threads, 3);
  EXPECT_EQ(plan(make_cpus(4, 1)).num_threads, 3);
  const ThreadPlan p = plan(make_cpus(8, 2));
  EXPECT_EQ(p.num_threads, 7);
  EXPECT_EQ(p.pins, (std::vector<int>{0, 1, 2, 3, 4, 5, 6}));
  EXPECT_TRUE(p.spin);
  EXPECT_EQ(p.reason, "8 cores among 16 allowed CPUs, one left for input and output");
}

TEST_F(ThreadPlanOf, CountsOnlyTheCoresOfTheAffinityMask) {
  make_cpus(16, 2);
  const ThreadPlan p = plan({5, 6, 21, 22});  // two cores, both threads of each
  EXPECT_EQ(p.num_threads, 2);
  EXPECT_EQ(p.pins, (std::vector<int>{5, 6}));
}

TEST_F(ThreadPlanOf, FollowsTheQuotaRoundedDownAndNeverBelowOne) {
  const std::vector<int> cpus = make_cpus(64, 2);
  set_quota("100000 100000");
  ThreadPlan p = plan(cpus);
  EXPECT_EQ(p.num_threads, 1);
  EXPECT_EQ(p.reason, "64 cores among 128 allowed CPUs, a quota of 1.00 CPUs");
  set_quota("50000 100000");
  EXPECT_EQ(plan(cpus).num_threads, 1);
  set_quota("290000 100000");
  EXPECT_EQ(plan(cpus).num_threads, 2);
  set_quota("400000 100000");
  p = plan(cpus);
  EXPECT_EQ(p.num_threads, 3) << "one of the four is left for input and output";
  EXPECT_TRUE(p.pins.empty()) << "another container would be bound to the same cores";
  EXPECT_TRUE(p.spin);
  set_quota("9000000 100000");
  p = plan(cpus);
  EXPECT_EQ(p.num_threads, 63) << "the quota is larger than the machine";
  EXPECT_EQ(p.pins.size(), 63u);
}

TEST_F(ThreadPlanOf, SpinsOnlyWithinCpusAndQuota) {
  const std::vector<int> cpus = make_cpus(8, 1);
  EXPECT_TRUE(plan(cpus, 8).spin);
  EXPECT_FALSE(plan(cpus, 9).spin);
  set_quota("200000 100000");
  EXPECT_TRUE(plan(cpus, 2).spin);
  EXPECT_FALSE(plan(cpus, 3).spin) << "spinning would spend the quota that the others need";
}

TEST_F(ThreadPlanOf, BindsNoWorkersOfAProcessThatSharesTheMachine) {
  const std::vector<int> cpus = make_cpus(8, 2);
  EXPECT_TRUE(plan(cpus, 6).pins.empty()) << "two such processes would share the first cores";
  EXPECT_EQ(plan(cpus, 7).pins.size(), 7u);
  const ThreadPlan all = plan(cpus, 16);
  EXPECT_EQ(all.num_threads, 16);
  EXPECT_EQ(all.pins[9], 9) << "the second thread of a core comes after the first of every other";
  EXPECT_TRUE(plan(cpus, 17).pins.empty());
  EXPECT_TRUE(plan_threads(0, false, cpus, root_).pins.empty());
}

TEST_F(ThreadPlanOf, TakesEveryCpuForACoreWhereTheMachineDoesNotSay) {
  std::vector<int> cpus(2048);
  std::iota(cpus.begin(), cpus.end(), 0);
  const ThreadPlan p = plan(cpus);
  EXPECT_EQ(p.num_threads, 2047);
  EXPECT_EQ(p.pins.back(), 2046);
}

TEST(AllowedCpus, AreThoseOfTheAffinityMask) {
  cpu_set_t set;
  ASSERT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  const std::vector<int> cpus = allowed_cpus();
  EXPECT_EQ(static_cast<int>(cpus.size()), CPU_COUNT(&set));
  EXPECT_TRUE(std::all_of(cpus.begin(), cpus.end(), [&](int cpu) { return CPU_ISSET(cpu, &set); }));
}

}  // namespace
}  // namespace serval
