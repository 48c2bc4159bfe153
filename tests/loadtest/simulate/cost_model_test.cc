#include "loadtest/simulate/cost_model.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <numeric>
#include <stdexcept>

namespace serval::load {
namespace {

TEST(CostModel, TheStepCostIsFoundAgainFromNoisySteps) {
  const StepCost truth{0.8, 0.02, 0.05, 0.3, {}};
  std::mt19937 random(3);
  std::uniform_real_distribution<double> noise(0.97, 1.03);
  std::vector<StepSample> samples;
  for (int i = 0; i < 500; ++i) {
    const StepShape shape{static_cast<double>(1 + random() % 300), static_cast<double>(1 + random() % 32),
                          static_cast<double>(random() % 40)};
    samples.push_back({shape, truth.mean_ms(shape) * noise(random)});
  }
  const StepCost found = fit_step_cost(samples);
  for (const StepSample& sample : samples)
    EXPECT_NEAR(found.mean_ms(sample.shape) / truth.mean_ms(sample.shape), 1, 0.04);
  EXPECT_THROW(fit_step_cost({}), std::runtime_error);
}

TEST(CostModel, StepsThatWereHeldUpCountInTheMeanAndStayInTheSpread) {
  std::mt19937 random(3);
  std::vector<StepSample> samples;
  double sum = 0;
  for (int i = 0; i < 2000; ++i) {
    const double milliseconds = random() % 20 == 0 ? 10 : 1;
    sum += milliseconds;
    samples.push_back({{1, 1, 0}, milliseconds});
  }
  const StepCost found = fit_step_cost(samples);
  EXPECT_NEAR(found.mean_ms({1, 1, 0}), sum / 2000, 0.01);
  std::mt19937_64 draws(1);
  double drawn = 0, most = 0;
  for (int i = 0; i < 10'000; ++i) {
    const double value = found.draw_ms({1, 1, 0}, draws);
    drawn += value;
    most = std::max(most, value);
  }
  EXPECT_NEAR(drawn / 10'000, sum / 2000, 0.1);
  EXPECT_NEAR(most, 10, 0.1);
}

TEST(CostModel, LongStepsVaryAsLongStepsDid) {
  std::mt19937 random(3);
  std::vector<StepSample> samples;
  for (int i = 0; i < 4000; ++i) {
    const double rows = i % 2 == 0 ? 10 : 1000;
    const double held_up = random() % 10 == 0 ? 5 : 0;  // milliseconds, whatever the step's length
    samples.push_back({{rows, 1, 0}, rows / 10 + held_up});
  }
  const StepCost found = fit_step_cost(samples);
  std::mt19937_64 draws(1);
  for (const double rows : {10.0, 1000.0}) {
    double most = 0;
    for (int i = 0; i < 1000; ++i) most = std::max(most, found.draw_ms({rows, 1, 0}, draws));
    EXPECT_NEAR(most, rows / 10 + 5, 0.5);
  }
}

TEST(CostModel, ACostWithoutInfluenceIsZeroNotNegative) {
  std::vector<StepSample> samples;
  for (int i = 1; i < 50; ++i) samples.push_back({{static_cast<double>(i), 1, 50.0 - i}, 1 + 0.1 * i});
  const StepCost found = fit_step_cost(samples);
  for (const double value : {found.step, found.row, found.seq, found.context}) EXPECT_GE(value, 0);
}

TEST(CostModel, ASpreadKeepsTheMeanAndTheOrder) {
  std::vector<double> values(1234);
  std::iota(values.begin(), values.end(), 0);
  const Spread spread = Spread::of(values);
  EXPECT_TRUE(std::is_sorted(spread.shares.begin(), spread.shares.end()));
  const double mean = std::accumulate(spread.shares.begin(), spread.shares.end(), 0.0) / spread.shares.size();
  EXPECT_NEAR(mean, 1233 / 2.0, 1);
  std::mt19937_64 random(1);
  EXPECT_EQ(Spread{}.draw(random, 7), 7);
  EXPECT_EQ(Spread::of({3}).draw(random, 7), 3);
}

TEST(CostModel, IsKeptInAFile) {
  const std::string path = testing::TempDir() + "/cost.json";
  CostModel cost;
  cost.decode = {1, 2, 3, 4, {{5, Spread{{0.5, 1.5}}}, {9, Spread{{1}}}}};
  cost.prompt = {5, 6, 7, 8, {}};
  cost.first_token = Spread{{9}};
  std::ofstream(path) << cost_json(cost);
  const CostModel read = read_cost(path);
  EXPECT_EQ(read.decode.mean_ms({10, 100, 1000}), 4321);
  EXPECT_EQ(read.prompt.mean_ms({10, 100, 1000}), 8765);
  ASSERT_EQ(read.decode.residuals.size(), 2u);
  EXPECT_EQ(read.decode.residuals[0].up_to_ms, 5);
  EXPECT_EQ(read.decode.residuals[0].ratio.shares, cost.decode.residuals[0].ratio.shares);
  EXPECT_TRUE(read.prompt.residuals.empty());
  EXPECT_EQ(read.first_token.shares, cost.first_token.shares);
  EXPECT_TRUE(read.last_token.shares.empty());
  for (const char* bad : {"{}", "[]", "", "{\"decode\": {\"step_ms\": -1}}"}) {
    std::ofstream(path) << bad;
    EXPECT_THROW(read_cost(path), std::runtime_error) << bad;
  }
  std::remove(path.c_str());
}

}  // namespace
}  // namespace serval::load
