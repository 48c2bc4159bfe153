#include "loadtest/simulate/simulate.h"

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
  o.cost.decode = o.cost.prompt = {1.0, 0.01, 0.1, 0.0, {}};
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

TEST(Simulate, GuessesThatComeTrueSaveSteps) {
  SimulationOptions o = options();
  o.scheduler.num_draft_tokens = 4;
  o.draft_acceptance = 1;
  const auto result = simulate(o, workload(1, 0, 100, 11));
  EXPECT_EQ(result.outcomes[0].output_tokens, 11);
  EXPECT_EQ(result.steps[0], 3u) << "one token, then twice five";
  o.draft_acceptance = 0;
  EXPECT_EQ(simulate(o, workload(1, 0, 100, 11)).steps[0], 11u);
}

TEST(Simulate, ReplicasShareTheLoadAndMoreAreFaster) {
  SimulationOptions o = options();
  const auto requests = workload(400, 0.002, 64, 32);
  const Summary one = summarise(simulate(o, requests).outcomes, {});
  o.replicas = 4;
  const Summary four = summarise(simulate(o, requests).outcomes, {});
  EXPECT_EQ(one.num_ok, 400u);
  EXPECT_LT(four.ttft_ms.p90, one.ttft_ms.p90 / 2);
  const Slo slo{four.ttft_ms.p99, 0};
  const FleetSize needed = find_fleet(o, requests, slo, 16);
  EXPECT_EQ(needed.prefill_replicas, 0);
  o.replicas = needed.replicas;
  EXPECT_GE(summarise(simulate(o, requests).outcomes, slo).good_share, 0.99);
  o.replicas = needed.replicas - 1;
  EXPECT_LT(summarise(simulate(o, requests).outcomes, slo).good_share, 0.99);
  EXPECT_EQ(find_fleet(o, requests, {1e-6, 0}, 2).replicas, 0);
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

TEST(Simulate, WhatNeverFitsFailsAlone) {
  SimulationOptions o = options();
  auto requests = workload(3, 0, 10, 5);
  requests[1].output_tokens = 2000;
  const auto result = simulate(o, requests);
  EXPECT_EQ(result.outcomes[1].error, "too long");
  EXPECT_TRUE(result.outcomes[0].error.empty() && result.outcomes[2].error.empty());
}

TEST(Simulate, WhatSurroundsAStepIsPartOfTheLatency) {
  SimulationOptions o = options();
  o.cost.arrival_idle = Spread{{3}};
  o.cost.arrival_busy = Spread{{5}};
  o.cost.first_token = Spread{{0.5}};
  o.cost.last_token = Spread{{0.25}};
  const auto result = simulate(o, workload(1, 0, 100, 5));
  EXPECT_NEAR(result.outcomes[0].token_s[0] * 1e3, 3 + 2.1 + 0.5, 1e-6);
  EXPECT_NEAR(result.outcomes[0].end_s * 1e3, 3 + 2.1 + 4 * 1.11 + 0.25, 1e-6);
}

TEST(Simulate, TheSameSeedDrawsTheSame) {
  SimulationOptions o = options();
  o.cost.decode.residuals = o.cost.prompt.residuals = {{1, Spread{{0.5, 1, 1.5}}}};
  const auto requests = workload(50, 0.002, 64, 32);
  const auto ends = [&](uint64_t seed) {
    o.seed = seed;
    std::vector<double> times;
    for (const Outcome& outcome : simulate(o, requests).outcomes) times.push_back(outcome.end_s);
    return times;
  };
  EXPECT_EQ(ends(1), ends(1));
  EXPECT_NE(ends(1), ends(2));
}

TEST(Simulate, AClosedLoopKeepsItsNumberOpen) {
  SimulationOptions o = options();
  o.concurrency = 3;
  const auto outcomes = simulate(o, workload(30, 0, 16, 8)).outcomes;
  EXPECT_EQ(summarise(outcomes, {}).num_ok, 30u);
  for (size_t i = 3; i < outcomes.size(); ++i) {
    const double at = outcomes[i].intended_s;
    int open = 0, just_ended = 0;
    for (const Outcome& other : outcomes) {
      open += other.intended_s < at && other.end_s > at;
      just_ended += other.end_s == at;
    }
    EXPECT_LE(open, 2);
    EXPECT_GT(just_ended, 0);
  }
}

TEST(Simulate, ATurnWaitsForTheOneBeforeIt) {
  auto requests = workload(3, 0, 16, 8);
  requests[1].after = 0;
  requests[2].after = 1;
  requests[2].think_s = 0.5;
  const auto outcomes = simulate(options(), requests).outcomes;
  EXPECT_EQ(outcomes[1].intended_s, outcomes[0].end_s);
  EXPECT_EQ(outcomes[2].intended_s, outcomes[1].end_s + 0.5);
}

// Chats on a small model, at so many times what it can do.
Summary overloaded(double times, int max_wait_ms) {
  SimulationOptions o = options();
  o.scheduler.max_num_seqs = 64;
  o.scheduler.max_waiting = 256;
  o.scheduler.max_model_len = 2048;
  o.scheduler.max_num_batched_tokens = o.scheduler.max_prefill_chunk = 512;
  o.scheduler.max_wait_ms = max_wait_ms;
  o.geometry.groups[0].num_blocks = 64 * 128;
  o.cost.decode = {0.3, 0.0, 0.06, 0.02, {}};
  o.cost.prompt = {0.4, 0.03, 0.05, 0.02, {}};
  WorkloadOptions w;
  w.rate = 142 * times;
  w.num_requests = static_cast<int>(7000 * times);
  w.input_tokens = w.output_tokens = 64;
  w.length_jitter = 0.5;
  w.send_token_ids = true;
  w.num_ids = 20'000;
  return summarise(simulate(o, synthetic_workload(w)).outcomes, {250, 0});
}

TEST(Simulate, AtThreeTimesTheLoadMostOfThePeakIsInTime) {
  const int by_default = SchedulerConfig{}.max_wait_ms;
  const double peak =
      std::max(overloaded(0.95, by_default).goodput_per_s, overloaded(1, by_default).goodput_per_s);
  EXPECT_GE(overloaded(3, by_default).goodput_per_s, 0.9 * peak);
  EXPECT_LT(overloaded(3, 0).goodput_per_s, 0.4 * peak) << "everybody waits alike: nothing was tried";
}

TEST(Simulate, ManyAtOnceAreAllAnsweredAsFastAsEver) {
  SimulationOptions o = options();
  const auto requests = workload(500, 0, 64, 32);
  const Summary late = summarise(simulate(o, requests).outcomes, {});
  o.scheduler.max_wait_ms = 0;
  const Summary alike = summarise(simulate(o, requests).outcomes, {});
  EXPECT_EQ(late.num_ok, 500u);
  EXPECT_NEAR(late.duration_s, alike.duration_s, 0.01 * alike.duration_s);
}

SimulationOptions two_pools(int prefill, int decode) {
  SimulationOptions o = options();
  o.prefill_replicas = prefill;
  o.replicas = decode;
  o.link = {1000, 1e6, 0.002};  // a millisecond a token, and two for the way
  return o;
}

TEST(SimulatePools, ARequestIsPrefilledSentAndDecoded) {
  const SimulationOptions o = two_pools(1, 1);
  const auto result = simulate(o, workload(1, 0, 100, 5));
  const Outcome& outcome = result.outcomes[0];
  EXPECT_NEAR(outcome.token_s[0] * 1e3, 2.1, 1e-6);
  // Then 100 ms of sending, 2 ms on the way, and four steps of a row each: the prompt is not computed again.
  EXPECT_NEAR(outcome.end_s * 1e3, 2.1 + 100 + 2 + 4 * 1.11, 1e-5);
  EXPECT_EQ(outcome.output_tokens, 5);
  EXPECT_EQ(result.steps, (std::vector<uint64_t>{1, 4}));
}

TEST(SimulatePools, OneTokenNeedsNoDecoding) {
  const auto result = simulate(two_pools(1, 1), workload(2, 0.1, 100, 1));
  EXPECT_EQ(result.steps[1], 0u);
  EXPECT_EQ(result.outcomes[1].output_tokens, 1);
  EXPECT_NEAR(result.outcomes[1].end_s * 1e3, 100 + 2.1, 1e-5);
}

TEST(SimulatePools, APrefillReplicaSendsOnePromptAtATime) {
  const auto outcomes = simulate(two_pools(1, 1), workload(2, 0, 100, 2)).outcomes;
  // Both are computed in one step; the second's KV waits for the first's.
  EXPECT_NEAR((outcomes[1].end_s - outcomes[0].end_s) * 1e3, 100, 1);
}

TEST(SimulatePools, DecodingIsNotHeldUpByPrompts) {
  auto requests = workload(60, 0.01, 200, 40);
  SimulationOptions pools = two_pools(1, 1);
  pools.link = {};
  pools.cost.prompt.row = 0.05;
  SimulationOptions both = options();
  both.replicas = 2;
  both.cost = pools.cost;
  both.routing = pools.routing = Routing::kRoundRobin;
  const Summary apart = summarise(simulate(pools, requests).outcomes, {});
  const Summary mixed = summarise(simulate(both, requests).outcomes, {});
  EXPECT_EQ(apart.num_ok, 60u);
  EXPECT_EQ(apart.output_tokens, mixed.output_tokens);
  EXPECT_LT(apart.tpot_ms.max, mixed.tpot_ms.max);
}

TEST(SimulatePools, EveryRoutingServesEveryRequest) {
  const auto requests = workload(200, 0.001, 50, 10);
  for (const Routing routing : {Routing::kRoundRobin, Routing::kLeastLoaded, Routing::kPrefix}) {
    SimulationOptions o = two_pools(2, 3);
    o.routing = routing;
    o.link = {};
    const auto result = simulate(o, requests);
    EXPECT_EQ(summarise(result.outcomes, {}).num_ok, 200u);
    EXPECT_EQ(summarise(result.outcomes, {}).output_tokens, 2000);
    for (const uint64_t steps : result.steps) EXPECT_GT(steps, 0u);
  }
}

TEST(SimulatePools, TheSmallestFleetOfTwoPoolsIsFound) {
  SimulationOptions o = two_pools(1, 1);
  o.link = {};
  const auto requests = workload(300, 0.002, 200, 20);
  const Slo slo{20, 3};
  const FleetSize found = find_fleet(o, requests, slo, 12);
  ASSERT_GT(found.replicas, 0);
  const auto good = [&](int prefill, int decode) {
    o.prefill_replicas = prefill;
    o.replicas = decode;
    return summarise(simulate(o, requests).outcomes, slo).good_share >= 0.99;
  };
  EXPECT_TRUE(good(found.prefill_replicas, found.replicas));
  const int smaller = found.prefill_replicas + found.replicas - 1;
  for (int prefill = 1; prefill < smaller; ++prefill)
    EXPECT_FALSE(good(prefill, smaller - prefill)) << prefill;
  EXPECT_EQ(find_fleet(o, requests, {1e-6, 0}, 3).replicas, 0);
}

}  // namespace
}  // namespace serval::load
