#include "loadtest/simulate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <random>

namespace serval::load {
namespace {

SimulationOptions options() {
  SimulationOptions o;
  o.scheduler.max_num_seqs = 8;
  o.scheduler.max_waiting = 100'000;
  o.scheduler.max_model_len = 1024;
  o.scheduler.max_num_batched_tokens = 256;
  o.scheduler.max_prefill_chunk = 256;
  o.geometry.groups[0].num_blocks = 1024;
  o.cost = {1.0, 0.01, 0.1, 0.0};
  return o;
}

std::vector<PlannedRequest> workload(int count, double gap_s, int input, int output) {
  WorkloadOptions w;
  w.num_requests = count;
  w.input_tokens = input;
  w.output_tokens = output;
  w.send_token_ids = true;
  std::vector<PlannedRequest> requests = synthetic_workload(w);
  for (int i = 0; i < count; ++i) requests[i].at_s = i * gap_s;
  return requests;
}

TEST(Simulate, OneRequestTakesWhatItsStepsCost) {
  SimulationOptions o = options();
  const auto result = simulate(o, workload(1, 0, 100, 5));
  const Outcome& outcome = result.outcomes[0];
  EXPECT_NEAR(outcome.token_s[0] * 1e3, 1.0 + 100 * 0.01 + 0.1, 1e-6);
  EXPECT_NEAR(outcome.end_s * 1e3, 2.1 + 4 * (1.0 + 0.01 + 0.1), 1e-6);
  EXPECT_EQ(outcome.output_tokens, 5);
  EXPECT_EQ(result.steps[0], 5u);
}

TEST(Simulate, ReplicasShareTheLoadAndMoreAreFaster) {
  SimulationOptions o = options();
  const auto requests = workload(400, 0.002, 64, 32);
  const Summary one = summarise(simulate(o, requests).outcomes, {});
  o.replicas = 4;
  const Summary four = summarise(simulate(o, requests).outcomes, {});
  EXPECT_EQ(one.num_ok, 400u);
  EXPECT_LT(four.ttft_ms.p90, one.ttft_ms.p90 / 2);
  const int needed = find_replicas(o, requests, {four.ttft_ms.max + 1, 0}, 16);
  EXPECT_GE(needed, 1);
  EXPECT_LE(needed, 4);
  EXPECT_EQ(find_replicas(o, requests, {1e-6, 0}, 2), 0);
}

TEST(Simulate, PrefixRoutingKeepsSharedPromptsTogether) {
  SimulationOptions o = options();
  o.replicas = 4;
  WorkloadOptions w;
  w.send_token_ids = true;
  std::vector<PlannedRequest> requests;
  for (int group = 0; group < 16; ++group) {
    w.seed = group;
    w.num_requests = 12;
    w.shared_prefix_tokens = 128;
    w.input_tokens = 16;
    w.output_tokens = 4;
    for (PlannedRequest& request : synthetic_workload(w)) requests.push_back(std::move(request));
  }
  std::shuffle(requests.begin(), requests.end(), std::mt19937(1));
  for (size_t i = 0; i < requests.size(); ++i) requests[i].at_s = static_cast<double>(i) * 0.05;
  const auto cached = [&](Routing routing) {
    o.routing = routing;
    return summarise(simulate(o, requests).outcomes, {}).cached_tokens;
  };
  EXPECT_GT(cached(Routing::kPrefix), cached(Routing::kRoundRobin));
}

TEST(Simulate, TheStepCostIsFoundAgainFromNoisySteps) {
  const StepCost truth{0.8, 0.02, 0.05, 0.3};
  std::mt19937 random(3);
  std::uniform_real_distribution<double> noise(0.97, 1.03);
  std::vector<StepSample> samples;
  for (int i = 0; i < 500; ++i) {
    const StepShape shape{static_cast<double>(1 + random() % 300), static_cast<double>(1 + random() % 32),
                          static_cast<double>(random() % 40)};
    samples.push_back({shape, truth.milliseconds(shape) * noise(random)});
  }
  const StepCost found = fit_step_cost(samples);
  for (const StepSample& sample : samples)
    EXPECT_NEAR(found.milliseconds(sample.shape) / truth.milliseconds(sample.shape), 1, 0.04);
  EXPECT_THROW(fit_step_cost({}), std::runtime_error);
}

TEST(Simulate, ACostWithoutInfluenceIsZeroNotNegative) {
  std::vector<StepSample> samples;
  for (int i = 1; i < 50; ++i) samples.push_back({{static_cast<double>(i), 1, 50.0 - i}, 1 + 0.1 * i});
  const StepCost found = fit_step_cost(samples);
  for (const double value : {found.step, found.row, found.seq, found.context}) EXPECT_GE(value, 0);
}

TEST(Simulate, TheCostModelIsKeptInAFile) {
  const std::string path = testing::TempDir() + "/cost.json";
  std::ofstream(path) << cost_json({1, 2, 3, 4});
  const StepCost read = read_cost(path);
  EXPECT_EQ(read.step + read.row * 10 + read.seq * 100 + read.context * 1000, 4321);
  std::ofstream(path) << "{}";
  EXPECT_THROW(read_cost(path), std::runtime_error);
  std::remove(path.c_str());
}

TEST(Simulate, WhatNeverFitsFailsAlone) {
  SimulationOptions o = options();
  auto requests = workload(3, 0, 10, 5);
  requests[1].output_tokens = 2000;
  const auto result = simulate(o, requests);
  EXPECT_EQ(result.outcomes[1].error, "too long");
  EXPECT_TRUE(result.outcomes[0].error.empty() && result.outcomes[2].error.empty());
}

}  // namespace
}  // namespace serval::load
