// How sequences end, to the token and the millisecond, and who may come in where somebody gave way.
#include <gtest/gtest.h>

#include <map>

#include "tests/engine/scheduler/scheduler_driver.h"

namespace serval::testing {
namespace {

SchedulerConfig config_of(int max_num_seqs, int max_num_batched_tokens) {
  SchedulerConfig config;
  config.max_num_seqs = max_num_seqs;
  config.max_num_batched_tokens = max_num_batched_tokens;
  config.max_prefill_chunk = max_num_batched_tokens;
  config.max_model_len = 256;
  config.max_waiting = 64;
  return config;
}

// Tokens and ends by (request, choice).
struct Ends {
  std::map<std::pair<RequestId, int>, int> tokens;
  std::map<std::pair<RequestId, int>, FinishReason> reason;

  explicit Ends(const EventBatch& events) {
    for (const TokenEvent& event : events.events) {
      if (event.token >= 0) ++tokens[{event.request, event.index}];
      if (event.finish != FinishReason::kNone) reason[{event.request, event.index}] = event.finish;
    }
  }
};

void run(SchedulerDriver& driver) {
  for (int i = 0; !driver.is_idle(); ++i) {
    ASSERT_LT(i, 2000);
    driver.turn();
  }
}

TEST(Ends, AnAbortEndsEveryChoice) {
  SchedulerDriver driver(config_of(8, 64), one_group(64, 8), 1);
  Request r = request(1, 10, 50);
  r.n = 3;
  driver.add(std::move(r));
  for (int i = 0; i < 5; ++i) driver.turn();
  driver.take(Abort{1});
  driver.turn();
  EXPECT_TRUE(driver.is_idle());
  const Ends ends(driver.events);
  for (int index = 0; index < 3; ++index) EXPECT_EQ(ends.reason.at({1, index}), FinishReason::kAborted) << index;
}

// A step a millisecond; decided before the step of that time.
TEST(Ends, ADeadlineEndsWhatRunsAtItsTimeAndNotBefore) {
  SchedulerDriver driver(config_of(8, 64), one_group(64, 8), 1);
  Request r = request(1, 10, 50);
  r.n = 2;
  r.deadline = Time{6};
  driver.add(std::move(r));
  while (driver.now < Time{5}) driver.turn();
  EXPECT_TRUE(Ends(driver.events).reason.empty());
  driver.turn();
  const Ends ends(driver.events);
  EXPECT_EQ(ends.reason.at({1, 0}), FinishReason::kDeadline);
  EXPECT_EQ(ends.reason.at({1, 1}), FinishReason::kDeadline);
  EXPECT_TRUE(driver.is_idle());
}

TEST(Ends, TheLastOfMinTokensMayBeAnEndAndNoneBefore) {
  for (const int min_tokens : {1, 5}) {
    SchedulerDriver driver(config_of(8, 64), one_group(64, 8), 1);
    Request r = request(1, 10, 50);
    r.sampling.min_tokens = min_tokens;
    for (TokenId id = 0; id < 50; ++id) r.sampling.stop_token_ids.push_back(id);  // every token could end it
    driver.add(std::move(r));
    run(driver);
    const Ends ends(driver.events);
    EXPECT_EQ(ends.tokens.at({1, 0}), min_tokens);
    EXPECT_EQ(ends.reason.at({1, 0}), FinishReason::kStop);
  }
}

// What was computed before is good, but nothing more of it is kept.
TEST(Ends, WhatFailedLeavesNoTailInTheCache) {
  for (const int failing_position : {0, 30}) {
    SchedulerDriver driver(config_of(8, 64), one_group(64, 8), 1);
    driver.runner.fails = [&](SeqId, int position) { return position >= failing_position; };
    driver.add(request(1, 30, 5));
    run(driver);
    EXPECT_EQ(Ends(driver.events).reason.at({1, 0}), FinishReason::kNumericalError);
    EXPECT_EQ(driver.scheduler.stats().num_cached_blocks, failing_position / 8) << "whole blocks of 8 only";
  }
}

// Runs two that outgrow the memory; `waiting` comes when they are about to, and the step in which one gives way is the result.
Batch step_of_giving_way(SchedulerDriver& driver, Request waiting) {
  driver.add(request(9, 4, 1));  // short answers are expected from here on
  run(driver);
  driver.add(request(1, 30, 90));
  driver.add(request(2, 30, 90));
  for (int i = 0; i < 200 && driver.scheduler.stats().num_free_blocks + (i < 2) > 0; ++i) driver.turn();
  EXPECT_EQ(driver.scheduler.stats().num_preemptions, 0u);
  driver.add(std::move(waiting));
  for (int i = 0; i < 200; ++i) {
    const Batch& batch = driver.turn();
    if (driver.scheduler.stats().num_preemptions > 0) return batch;
    EXPECT_EQ(batch.num_admitted, 0) << "there is room for it already";
  }
  ADD_FAILURE() << "nobody gave way";
  return {};
}

TEST(Ends, NobodyIsLetInInTheStepInWhichSomebodyGaveWay) {
  for (const int num_prompt : {4, 40}) {  // one goes past others, the other waits for its turn
    SchedulerConfig config = config_of(3, 64);
    config.enable_prefix_cache = false;
    SchedulerDriver driver(config, one_group(16, 8), 1);
    const Batch batch = step_of_giving_way(driver, request(3, num_prompt, 2));
    EXPECT_EQ(batch.num_admitted, 0) << num_prompt;
    run(driver);
    EXPECT_EQ(Ends(driver.events).tokens.at({3, 0}), 2);
  }
}

TEST(Ends, WhoGaveWayWaitsBehindAHigherPriority) {
  SchedulerConfig config = config_of(2, 64);
  config.enable_prefix_cache = false;
  config.policy = QueuePolicy::kPriority;
  SchedulerDriver driver(config, one_group(16, 8), 1);
  driver.add(request(9, 4, 1));
  run(driver);
  driver.add(request(1, 30, 90));
  Request low = request(2, 30, 90);
  low.priority = 5;
  driver.add(std::move(low));
  while (driver.scheduler.stats().num_preemptions == 0) {
    ASSERT_LT(driver.now, Time{500});
    driver.turn();
  }
  Request urgent = request(3, 20, 10);
  urgent.priority = 1;
  driver.add(std::move(urgent));
  driver.events.clear();
  run(driver);
  // It does not wait until there is room for the one that gave way.
  int ended_before = 0;
  for (const TokenEvent& event : driver.events.events) {
    if (event.finish == FinishReason::kNone) continue;
    if (event.request == 3) break;
    ++ended_before;
  }
  EXPECT_EQ(ended_before, 0);
}

}  // namespace
}  // namespace serval::testing
