// The last words of a process whose own check failed.
#include "kernels/base/log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include "kernels/base/check.h"

namespace serval {
namespace {

TEST(LogDeathTest, AFailedCheckIsTheLastLineBehindThoseThatWaited) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        for (int i = 0; i < 100; ++i) log_info("before", {{"line", i}});
        SERVAL_CHECK(1 + 1 == 3, "two", 2);
      },
      ::testing::KilledBySignal(SIGABRT), "before line=99\n.*ERROR .*log_test.cc:[0-9]+: check failed: 1 \\+ 1 == 3: two, 2\n$");
}

TEST(LogDeathTest, AFailedCheckEndsTheProcessThoughNobodyReadsItsLog) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        int ends[2];
        SERVAL_CHECK(pipe(ends) == 0);
        dup2(ends[1], STDERR_FILENO);
        for (int i = 0; i < 4000; ++i) log_info("a line that fills the pipe and then the queue", {{"line", i}});
        SERVAL_CHECK(false);
      },
      ::testing::KilledBySignal(SIGABRT), "");
}

// Before the first line there is no thread that could write.
TEST(LogDeathTest, AFailedCheckIsToldWithoutALog) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(SERVAL_CHECK(false, 7), ::testing::KilledBySignal(SIGABRT), "check failed: false: 7\n$");
}

}  // namespace
}  // namespace serval
