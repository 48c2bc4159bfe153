#include "loadtest/measure.h"

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

}  // namespace
}  // namespace serval::load
