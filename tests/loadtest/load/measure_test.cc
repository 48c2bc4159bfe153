#include "loadtest/load/measure.h"

#include <gtest/gtest.h>

namespace serval::load {
namespace {

TEST(Measure, PercentilesInterpolateBetweenRanks) {
  std::vector<double> values;
  for (int i = 100; i >= 1; --i) values.push_back(i);
  const Percentiles p = percentiles(values);
  EXPECT_DOUBLE_EQ(p.mean, 50.5);
  EXPECT_DOUBLE_EQ(p.p50, 50.5);
  EXPECT_NEAR(p.p90, 90.1, 1e-9);
  EXPECT_NEAR(p.p99, 99.01, 1e-9);
  EXPECT_EQ(p.max, 100);
  EXPECT_EQ(percentiles({}).count, 0u);
  EXPECT_EQ(percentiles({7}).p99, 7);
}

TEST(Measure, LatencyCountsFromTheIntendedTime) {
  Outcome o;
  o.intended_s = 1;
  o.sent_s = 1.5;
  o.token_s = {2, 2.1, 2.3};
  o.end_s = 2.4;
  o.output_tokens = 3;
  const Summary s = summarise({o}, {});
  EXPECT_NEAR(s.ttft_ms.p50, 1000, 1e-6);
  EXPECT_NEAR(s.tpot_ms.p50, 150, 1e-6);
  EXPECT_NEAR(s.itl_ms.max, 200, 1e-6);
  EXPECT_NEAR(s.e2e_ms.p50, 1400, 1e-6);
  EXPECT_NEAR(s.send_lag_ms.p50, 500, 1e-6);
}

TEST(Measure, GoodputCountsRequestsThatMeetEverySlo) {
  std::vector<Outcome> outcomes(3);
  for (int i = 0; i < 3; ++i) {
    outcomes[i].token_s = {0.1 + i * 0.1, 0.2 + i * 0.3};
    outcomes[i].output_tokens = 2;
    outcomes[i].end_s = 1;
  }
  outcomes.push_back({});
  outcomes.back().error = "connect";
  EXPECT_NEAR(summarise(outcomes, {250, 0}).good_share, 0.5, 1e-9);
  EXPECT_NEAR(summarise(outcomes, {250, 150}).good_share, 0.25, 1e-9);
  EXPECT_EQ(summarise(outcomes, {}).errors.at("connect"), 1);
}

// Requests sent at `offered` a second, answered at `served` a second after a wait.
std::vector<Outcome> run_at(double offered, double served, int count = 60) {
  std::vector<Outcome> outcomes(count);
  for (int i = 0; i < count; ++i) {
    outcomes[i].intended_s = i / offered;
    outcomes[i].end_s = 2 + i / served;
    outcomes[i].token_s = {outcomes[i].end_s};
  }
  return outcomes;
}

TEST(Measure, RatesAreTakenBetweenTheFirstAndTheLastSoThatALongAnswerDoesNotCount) {
  const Summary s = summarise(run_at(10, 8), {});
  EXPECT_NEAR(s.offered_per_s, 10, 1e-9);
  EXPECT_NEAR(s.served_per_s, 8, 1e-9);
  EXPECT_LT(s.requests_per_s, 7.9);
  EXPECT_EQ(summarise(run_at(10, 10, 1), {}).served_per_s, 0);
  EXPECT_EQ(summarise({}, {}).offered_per_s, 0);
}

TEST(Measure, ARateIsHeldOnlyWhenItWasAlsoServed) {
  const Slo slo{1e6, 0};
  EXPECT_TRUE(holds_its_rate(summarise(run_at(10, 10), slo)));
  EXPECT_TRUE(holds_its_rate(summarise(run_at(10, 9.01), slo)));
  EXPECT_FALSE(holds_its_rate(summarise(run_at(10, 8.99), slo)));
  EXPECT_FALSE(holds_its_rate(summarise(run_at(20480, 140), slo)));  // all in the queue within 3 ms
  EXPECT_FALSE(holds_its_rate(summarise(run_at(10, 10), {1, 0})));   // served, but late
  EXPECT_FALSE(holds_its_rate(summarise(run_at(10, 10, 1), slo)));   // one request has no rate
  EXPECT_FALSE(holds_its_rate(summarise({}, slo)));
}

TEST(Measure, TheFirstMessageOfEachKindOfFailureIsKept) {
  std::vector<Outcome> outcomes(4);
  outcomes[0].error = outcomes[1].error = outcomes[2].error = "status 400";
  outcomes[1].message = "too long";
  outcomes[2].message = "another";
  outcomes[3].error = "timeout";
  const Summary s = summarise(outcomes, {});
  EXPECT_EQ(s.error_messages, (std::map<std::string, std::string>{{"status 400", "too long"}}));
  EXPECT_EQ(s.errors.at("status 400"), 3);
}

}  // namespace
}  // namespace serval::load
