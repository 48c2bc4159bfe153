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
  EXPECT_GT(cost.max_rows(100, 16, 512), 400);
}

TEST(StepCost, FollowsAMachineThatBecomesSlower) {
  StepCost cost;
  for (int i = 0; i < 50; ++i) cost.learn(1 + i * 37 % 500, ms_of(1 + i * 37 % 500));
  for (int i = 0; i < 200; ++i) cost.learn(1 + i * 37 % 500, 4 * ms_of(1 + i * 37 % 500));
  EXPECT_NEAR(cost.max_rows(100, 16, 512), 200, 4);
}

}  // namespace
}  // namespace serval
