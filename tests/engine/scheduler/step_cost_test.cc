// What is learned of steps, and what a step may hold by it.
#include "engine/step_cost.h"

#include <gtest/gtest.h>

namespace serval {
namespace {

double ms_of(int rows) {
  return 5 + 0.1 * rows;
}

TEST(StepCost, AllowsEverythingWhileNothingWasMeasured) {
  EXPECT_EQ(StepCost().max_rows(1, 16, 512), 512);
  StepCost instant;
  for (int i = 0; i < 10; ++i) instant.learn(100, 0);
  EXPECT_EQ(instant.max_rows(1, 16, 512), 512);
}

TEST(StepCost, LearnsWhatAStepAndARowCost) {
  StepCost cost;
  for (int i = 0; i < 50; ++i) cost.learn(1 + i * 37 % 500, ms_of(1 + i * 37 % 500));
  EXPECT_NEAR(cost.max_rows(25, 16, 512), 200, 1);
  EXPECT_EQ(cost.max_rows(1000, 16, 512), 512);
}

TEST(StepCost, IsNeverLessThanTwiceAnEmptyStepNorLessThanTheLeast) {
  StepCost cost;
  for (int i = 0; i < 50; ++i) cost.learn(1 + i * 37 % 500, ms_of(1 + i * 37 % 500));
  EXPECT_NEAR(cost.max_rows(1, 16, 512), 50, 1) << "5 ms without rows: 10 ms are allowed";
  EXPECT_EQ(cost.max_rows(1, 64, 512), 64);
}

TEST(StepCost, TakesRowsForDearWhenAllStepsWereOfOneSize) {
  StepCost cost;
  for (int i = 0; i < 50; ++i) cost.learn(4, 8);
  EXPECT_EQ(cost.max_rows(100, 16, 512), 50) << "2 ms a row, until a larger step tells otherwise";
  cost.learn(50, 12);
  EXPECT_EQ(cost.max_rows(100, 16, 512), 100) << "twice the largest that was seen";
  cost.learn(100, 17);
  EXPECT_EQ(cost.max_rows(100, 16, 512), 200);
}

TEST(StepCost, FeelsItsWayToStepsMuchLargerThanItHasSeen) {
  const auto slow_ms = [](int rows) { return 30 + 2.7 * std::max(0, rows - 8); };  // up to 8 rows cost what one does
  StepCost cost;
  const auto one_to_eight = [&] {
    for (int i = 0; i < 300; ++i) cost.learn(1 + i % 8, slow_ms(1 + i % 8));
  };
  one_to_eight();
  for (int round = 0; round < 2; ++round) {
    int rows = 0;
    for (int step = 0; step < 5; ++step) {
      rows = cost.max_rows(200, 16, 512);
      EXPECT_LE(slow_ms(rows), 220);
      cost.learn(rows, slow_ms(rows));
    }
    EXPECT_GE(rows, 60);
    one_to_eight();  // what larger steps take is forgotten
  }
}

TEST(StepCost, NeedNotFeelItsWayWhereEvenAllThatStepsTookWouldFit) {
  StepCost cost;
  for (int i = 0; i < 300; ++i) cost.learn(1 + i % 8, 0.3);
  EXPECT_EQ(cost.max_rows(200, 16, 512), 512);
}

TEST(StepCost, FollowsAMachineThatBecomesSlower) {
  StepCost cost;
  for (int i = 0; i < 50; ++i) cost.learn(1 + i * 37 % 500, ms_of(1 + i * 37 % 500));
  for (int i = 0; i < 200; ++i) cost.learn(1 + i * 37 % 500, 4 * ms_of(1 + i * 37 % 500));
  EXPECT_NEAR(cost.max_rows(100, 16, 512), 200, 4);
}

}  // namespace
}  // namespace serval
