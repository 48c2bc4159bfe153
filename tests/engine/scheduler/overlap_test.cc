// One step planned ahead: the device gets the next step while one runs, and nobody is told anything else.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>

#include "tests/engine/scheduler/random_life.h"
#include "tests/engine/scheduler/scheduler_driver.h"
#include "tests/support/random_drafts.h"

namespace serval::testing {
namespace {

using Key = std::pair<RequestId, int>;  // request, index
struct Told {
  std::vector<TokenId> tokens;
  FinishReason finish = FinishReason::kNone;
  bool operator==(const Told&) const = default;
};

SchedulerConfig small_config() {
  SchedulerConfig config;
  config.max_num_seqs = 4;
  config.max_num_batched_tokens = config.max_prefill_chunk = 32;
  config.max_model_len = 128;
  return config;
}

class Overlap : public ::testing::Test {
 protected:
  void start(int num_blocks, const SchedulerConfig& config = small_config()) {
    driver_.emplace(config, one_group(num_blocks, 8), kMaxStepsInFlight);
  }
  void add(Request r) { driver_->add(std::move(r)); }
  const Batch& turn() {
    const Batch& batch = driver_->turn();
    for (const TokenEvent& event : driver_->events.events) {
      Told& told = told_[{event.request, event.index}];
      if (event.token >= 0) told.tokens.push_back(event.token);
      told.finish = event.finish;
    }
    driver_->events.clear();
    return batch;
  }
  void run() {
    for (int i = 0; !driver_->is_idle(); ++i) {
      ASSERT_LT(i, 10'000);
      turn();
    }
  }
  std::vector<TokenId> alone(const Request& r) const {
    std::vector<TokenId> history = r.prompt;
    for (int i = 0; i < r.sampling.max_tokens; ++i)
      history.push_back(driver_->runner.next_token(history, r.sampling.seed));
    return {history.begin() + static_cast<int>(r.prompt.size()), history.end()};
  }
  int num_held() const {
    const SchedulerStats stats = driver_->scheduler.stats();
    return stats.num_blocks - stats.num_free_blocks - stats.num_cached_blocks;
  }

  std::optional<SchedulerDriver> driver_;
  std::map<Key, Told> told_;
};

TEST_F(Overlap, AStreamHasItsNextRowOnTheDeviceBeforeItsTokenIsKnown) {
  start(64);
  const Request r = request(1, 10, 5);
  add(r);
  std::vector<std::vector<TokenId>> planned;
  std::vector<int> positions;
  for (int i = 0; i < 5; ++i) {
    const Batch& batch = turn();
    planned.emplace_back(batch.tokens.begin(), batch.tokens.end());
    positions.push_back(batch.seqs[0].first_pos);
    EXPECT_EQ((told_[{1, 0}].tokens.size()), static_cast<size_t>(i))
        << "a step is told when the next is under way";
  }
  EXPECT_EQ(planned[0], r.prompt);
  for (int i = 1; i < 5; ++i) EXPECT_EQ(planned[i], std::vector<TokenId>{kTokenOnDevice});
  EXPECT_EQ(positions, (std::vector<int>{0, 10, 11, 12, 13}));
  EXPECT_TRUE(turn().empty()) << "max_tokens is known ahead: nothing is planned past it";
  EXPECT_EQ((told_[{1, 0}]), (Told{alone(r), FinishReason::kLength}));
}

TEST_F(Overlap, WhatEndsInOneStepIsDroppedFromTheNextAndLetsGoWhenThatIsOver) {
  start(64);
  Request r = request(1, 10, 50);
  const std::vector<TokenId> natural = alone(r);
  r.sampling.stop_token_ids = {natural[3]};
  const size_t end = std::find(natural.begin(), natural.end(), natural[3]) - natural.begin() + 1;
  add(r);
  while (told_[{1, 0}].finish == FinishReason::kNone) turn();
  EXPECT_GT(num_held(), 0) << "a step is in flight that writes to its blocks";
  EXPECT_FALSE(driver_->is_idle());
  EXPECT_TRUE(turn().empty());
  EXPECT_EQ(num_held(), 0);
  EXPECT_TRUE(driver_->is_idle());
  EXPECT_EQ((told_[{1, 0}].finish), FinishReason::kStop);
  EXPECT_EQ((told_[{1, 0}].tokens), std::vector<TokenId>(natural.begin(), natural.begin() + end));
}

TEST_F(Overlap, AnAbortOfWhatIsInTwoStepsWaitsForBoth) {
  start(64);
  add(request(1, 10, 50));
  for (int i = 0; i < 4; ++i) turn();
  driver_->plan();
  driver_->run();
  driver_->take(Abort{1});
  driver_->scheduler.check_invariants();
  for (int left = 2; left > 0; --left) {
    EXPECT_GT(num_held(), 0);
    driver_->complete_step();
    driver_->scheduler.check_invariants();
  }
  EXPECT_EQ(num_held(), 0);
  ASSERT_EQ(driver_->events.events.size(), 1u);
  EXPECT_EQ(driver_->events.events[0].finish, FinishReason::kAborted);
  EXPECT_EQ(driver_->events.events[0].num_output, 3) << "as many as were told";
}

TEST_F(Overlap, AConstrainedSequenceWaitsForItsTokenAndNobodyElseDoes) {
  start(64);
  Request constrained = request(1, 10, 20);
  constrained.constrained = true;
  const Request free = request(2, 10, 20);
  add(constrained);
  add(free);
  int steps_of_constrained = 0, steps_of_free = 0, turns = 0;
  for (; told_[{2, 0}].finish == FinishReason::kNone; ++turns) {
    const Batch& batch = turn();
    for (const SeqStep& step : batch.seqs) {
      ++(step.seq == 1 ? steps_of_constrained : steps_of_free);
      if (step.seq == 1) {
        EXPECT_NE(batch.tokens[step.tokens_begin], kTokenOnDevice);
      }
    }
  }
  EXPECT_EQ(steps_of_free, 20);
  EXPECT_EQ(turns, 21);
  EXPECT_EQ(steps_of_constrained, 11) << "every other step";
  run();
  EXPECT_EQ((told_[{1, 0}]), (Told{alone(constrained), FinishReason::kLength}));
}

TEST_F(Overlap, TheOldestGetsTheMemoryOfThoseInFlight) {
  start(12);              // 96 positions
  add(request(9, 4, 1));  // short answers are expected from here on
  run();
  std::vector<Request> requests;
  for (RequestId id = 1; id <= 4; ++id) requests.push_back(request(id, 20, 70));
  for (const Request& r : requests) add(r);
  int missed = 0;  // turns in a row without a row of the oldest
  while (told_[{1, 0}].tokens.size() < 68) {
    const Batch& batch = turn();
    const bool has_row =
        std::any_of(batch.seqs.begin(), batch.seqs.end(), [](const SeqStep& s) { return s.seq == 2; });
    missed = has_row ? 0 : missed + 1;
    ASSERT_LE(missed, 1) << "it waits for the step in flight, not for those in it to end";
  }
  run();
  EXPECT_GT(driver_->scheduler.stats().num_preemptions, 0u);
  for (const Request& r : requests)
    EXPECT_EQ((told_[{r.id, 0}]), (Told{alone(r), FinishReason::kLength})) << r.id;
}

// Nor do prompts go on in blocks that they have: what is in no step can give way.
TEST_F(Overlap, NobodyIsPlannedPastTheOldestThatLacksMemory) {
  SchedulerConfig config = small_config();
  config.max_prefill_chunk = 2;
  int times_missed = 0;
  for (int blocks = 8; blocks < 12; ++blocks) {
    start(blocks, config);
    told_.clear();
    add(request(9, 4, 1));  // short answers are expected from here on
    run();
    const Request oldest = request(1, 20, 40);
    add(oldest);
    turn();
    for (RequestId id = 2; id <= 12; ++id) add(request(id, 30, 1));
    int missed = 0;
    bool has_begun = false;
    while (told_[{1, 0}].tokens.size() < 38) {
      const Batch& batch = turn();
      const bool has_row =
          std::any_of(batch.seqs.begin(), batch.seqs.end(), [](const SeqStep& s) { return s.seq == 2; });
      has_begun = has_begun || has_row;
      missed = has_row ? 0 : missed + has_begun;
      times_missed += missed > 0;
      EXPECT_LE(missed, 1) << blocks;
    }
    run();
    EXPECT_EQ((told_[{1, 0}]), (Told{alone(oldest), FinishReason::kLength}));
  }
  EXPECT_GT(times_missed, 0);
}

// What a life tells when up to `depth` steps are in flight. Ends from outside come when a sequence has so
// many tokens, whatever the schedule: what a step has drawn behind them is nobody's.
struct Outcome {
  std::map<Key, Told> told;
  std::map<RequestId, std::vector<int>> prompt_positions;
  uint64_t num_preemptions = 0, num_hits = 0, num_tokens_on_device = 0, num_accepted = 0;
};

Outcome live(RandomLife life, int depth, bool has_drafts = false) {
  constexpr int kTurns = 600;
  life.config.max_waiting = 400;
  SchedulerDriver driver(life.config, life.geometry, depth);
  // Rows of a prompt never fail: where its chunks end is the schedule's business.
  driver.runner.fails = [](SeqId seq, int position) {
    return position > 40 && (seq * 31 + position) % 97 == 0;
  };
  if (has_drafts) driver.runner.propose = RandomDrafts{driver.runner, life.config.num_draft_tokens, true};
  Outcome outcome;
  std::map<Key, int> aborted_at, stopped_at;
  std::map<Key, FinishReason> ended;  // from outside
  bool is_over = false;  // a last turn brings the ends that wait for no step
  for (int turn = 0; turn < kTurns || !is_over; ++turn) {
    is_over = turn >= kTurns && driver.is_idle();
    SERVAL_CHECK(turn < 100'000, "the life does not end", depth);
    if (turn < kTurns && life.pick(4) == 0) {
      Request r = life.next_request(driver.now);
      r.deadline = Time{0};
      r.constrained = life.pick(8) == 0;
      if (life.pick(6) == 0) r.sampling.num_prompt_logprobs = 0;
      // All sequences of a request are aborted at once, each wherever it is: only one alone is comparable.
      const int when = static_cast<int>(1 + life.pick(10));
      if (life.pick(6) == 0 && r.n == 1) aborted_at[{r.id, 0}] = when;
      if (life.pick(6) == 0) stopped_at[{r.id, r.n - 1}] = when;
      driver.add(std::move(r));
    }
    const Batch& batch = driver.turn();
    outcome.num_tokens_on_device += std::count(batch.tokens.begin(), batch.tokens.end(), kTokenOnDevice);
    for (const EventBatch::PromptPart& part : driver.events.prompt_parts) {
      for (int i = 0; i < part.count; ++i)
        outcome.prompt_positions[part.request].push_back(part.first_position + i);
    }
    const std::vector<TokenEvent> happened = std::move(driver.events.events);
    driver.events.clear();
    for (const TokenEvent& event : happened) {
      const Key key{event.request, event.index};
      Told& told = outcome.told[key];
      SERVAL_CHECK(told.finish == FinishReason::kNone, "an event after the last");
      if (ended.count(key)) {
        if (event.finish != FinishReason::kNone) told.finish = ended[key];
        continue;
      }
      if (event.token >= 0) told.tokens.push_back(event.token);
      SERVAL_CHECK(event.num_output == static_cast<int>(told.tokens.size()), event.num_output);
      told.finish = event.finish;
      if (event.finish != FinishReason::kNone) continue;
      if (stopped_at.count(key) && stopped_at[key] == event.num_output) {
        ended[key] = FinishReason::kStopString;
        driver.take(StopMatched{event.request, event.index});
      }
      if (aborted_at.count(key) && aborted_at[key] == event.num_output) {
        ended.try_emplace(key, FinishReason::kAborted);
        driver.take(Abort{event.request});
      }
    }
  }
  const SchedulerStats stats = driver.scheduler.stats();
  SERVAL_CHECK(stats.num_free_blocks + stats.num_cached_blocks == stats.num_blocks);
  outcome.num_preemptions = stats.num_preemptions;
  outcome.num_hits = stats.prefix_hit_tokens;
  outcome.num_accepted = stats.num_accepted_tokens;
  return outcome;
}

void expect_same(const Outcome& one, const Outcome& other, const std::string& what) {
  ASSERT_EQ(one.told.size(), other.told.size()) << what;
  for (const auto& [key, told] : one.told) {
    const Told& again = other.told.at(key);
    ASSERT_TRUE(told == again) << what << " request " << key.first << " index " << key.second << ": "
                               << told.tokens.size() << " tokens, end " << static_cast<int>(told.finish)
                               << "; " << again.tokens.size() << ", end " << static_cast<int>(again.finish);
  }
  EXPECT_EQ(one.prompt_positions, other.prompt_positions) << what;
}

TEST(OverlapLaw, ChangesNoTokenAndNoEnd) {
  uint64_t preemptions = 0, hits = 0;
  std::map<FinishReason, int> ends;
  for (uint64_t seed = 1; seed <= 36; ++seed) {
    RandomLife life(seed);
    life.config.enable_prefix_cache = seed % 4 != 0;
    life.config.policy = seed % 3 == 0 ? QueuePolicy::kPriority : QueuePolicy::kFcfs;
    if (seed % 5 == 0) life.geometry.groups[0].window = 12;
    if (seed % 2 == 0) life.geometry.groups[0].num_blocks = 18;
    if (seed % 7 == 0) life.geometry.num_groups = 1;
    if (seed > 24) life.keep_states();
    const Outcome in_turn = live(life, 1), ahead = live(life, kMaxStepsInFlight);
    EXPECT_EQ(in_turn.num_tokens_on_device, 0u);
    EXPECT_GT(ahead.num_tokens_on_device, 500u);
    expect_same(in_turn, ahead, "ahead, seed " + std::to_string(seed));
    for (const auto& [key, told] : in_turn.told) ++ends[told.finish];
    life.config.num_draft_tokens = 5;
    for (const int depth : {1, kMaxStepsInFlight}) {
      const Outcome drafted = live(life, depth, true);
      EXPECT_GT(drafted.num_accepted, 200u);
      expect_same(in_turn, drafted, "with drafts, depth " + std::to_string(depth) + ", seed " + std::to_string(seed));
    }
    preemptions += std::min(in_turn.num_preemptions, ahead.num_preemptions);
    hits += std::min(in_turn.num_hits, ahead.num_hits);
  }
  EXPECT_GT(preemptions, 150u);  // the lives were hard enough to show something
  EXPECT_GT(hits, 3000u);
  for (const FinishReason reason : {FinishReason::kStop, FinishReason::kStopString, FinishReason::kLength,
                                    FinishReason::kAborted, FinishReason::kNumericalError})
    EXPECT_GT(ends[reason], 20) << static_cast<int>(reason);
  EXPECT_EQ(ends[FinishReason::kNone], 0);
}

}  // namespace
}  // namespace serval::testing
