// Limits of control groups, read from the files of machines as they are found.
#include "kernels/cpu/control_group.h"

#include "kernels/cpu/system_memory.h"
#include "tests/kernels/fake_machine.h"

namespace serval {
namespace {

using ControlGroup = FakeMachine;

constexpr size_t kMiB = 1 << 20;

TEST_F(ControlGroup, LimitsNothingWhereThereAreNoFiles) {
  EXPECT_EQ(cpu_quota(root_), 0);
  EXPECT_EQ(control_group_memory(root_), kNoMemoryLimit);
}

TEST_F(ControlGroup, TakesTheQuotaOfAContainerThatSeesItsGroupAsTheRoot) {
  write("proc/self/cgroup", "0::/");
  write("sys/fs/cgroup/cpu.max", "150000 100000");
  EXPECT_EQ(cpu_quota(root_), 1.5);
  write("sys/fs/cgroup/cpu.max", "max 100000");
  EXPECT_EQ(cpu_quota(root_), 0);
}

TEST_F(ControlGroup, TakesTheSmallestQuotaOfTheGroupAndItsAncestors) {
  write("proc/self/cgroup", "0::/pods/pod1/main");
  write("sys/fs/cgroup/pods/pod1/main/cpu.max", "max 100000");
  write("sys/fs/cgroup/pods/pod1/cpu.max", "300000 100000");
  write("sys/fs/cgroup/pods/cpu.max", "800000 100000");
  EXPECT_EQ(cpu_quota(root_), 3);
  write("sys/fs/cgroup/pods/cpu.max", "20000 10000");
  EXPECT_EQ(cpu_quota(root_), 2);
}

TEST_F(ControlGroup, TakesTheMountWhereThePathLiesOutsideOfIt) {
  write("proc/self/cgroup", "0::/../../kubepods/other");
  write("sys/fs/cgroup/cpu.max", "100000 100000");
  EXPECT_EQ(cpu_quota(root_), 1);
}

TEST_F(ControlGroup, ReadsVersion1) {
  write("proc/self/cgroup", "4:memory:/docker/a\n3:cpu,cpuacct:/docker/a\n1:name=systemd:/\n0::/");
  write("sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_quota_us", "250000");
  write("sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_period_us", "100000");
  write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1");
  write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000");
  EXPECT_EQ(cpu_quota(root_), 2.5);

  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
  EXPECT_EQ(control_group_memory(root_), kNoMemoryLimit);
  write("sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes", std::to_string(100 * kMiB));
  write("sys/fs/cgroup/memory/docker/a/memory.usage_in_bytes", std::to_string(70 * kMiB));
  write("sys/fs/cgroup/memory/docker/a/memory.stat", "cache 1\ntotal_cache " + std::to_string(50 * kMiB));
  EXPECT_EQ(control_group_memory(root_), 80 * kMiB);
}

TEST_F(ControlGroup, ReadsVersion1UnderTheShortNameOfItsMount) {
  write("proc/self/cgroup", "3:cpu,cpuacct:/");
  write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000");
  write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000");
  EXPECT_EQ(cpu_quota(root_), 0.5);
}

TEST_F(ControlGroup, LeavesWhatTheTightestGroupLeavesAndTheMachineHas) {
  write("proc/meminfo", "MemTotal: 999999 kB\nMemAvailable:    204800 kB\nHugePages_Total:       0\n");
  EXPECT_EQ(available_memory_bytes(root_), 200 * kMiB);
  write("proc/self/cgroup", "0::/a/b");
  write("sys/fs/cgroup/a/memory.max", std::to_string(150 * kMiB));
  write("sys/fs/cgroup/a/memory.current", std::to_string(90 * kMiB));
  write("sys/fs/cgroup/a/memory.stat", "anon 5\nfile " + std::to_string(20 * kMiB));
  write("sys/fs/cgroup/a/b/memory.max", "max");
  EXPECT_EQ(available_memory_bytes(root_), 80 * kMiB);
  write("sys/fs/cgroup/a/memory.current", std::to_string(900 * kMiB));
  EXPECT_EQ(available_memory_bytes(root_), 0u);
}

}  // namespace
}  // namespace serval
