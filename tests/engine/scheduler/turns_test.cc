// Who goes first and who is let in: flows, short prompts, and memory kept for those that run. In steps and
// rows.
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <vector>

#include "tests/engine/scheduler/scheduler_driver.h"

namespace serval::testing {
namespace {

SchedulerConfig default_config() {
  SchedulerConfig config;
  config.max_waiting = 1000;
  return config;
}

// A scheduler and what it told: when each request's first token came, in steps, and how many rows it was
// given.
class Turns {
 public:
  Turns(const SchedulerConfig& config, const BlockGeometry& geometry, int depth = 1)
      : driver_(config, geometry, depth) {}

  void add(Request r) {
    owner_.insert(owner_.end(), r.n, r.id);
    driver_.add(std::move(r));
  }
  const Batch& step() {
    const Batch& batch = driver_.turn();
    num_steps += !batch.empty();
    for (const SeqStep& s : batch.seqs) rows[owner_[s.seq - 1]] += s.num_tokens;
    for (const TokenEvent& event : driver_.events.events) {
      if (event.token >= 0 && event.num_output == 1) {
        first_token.emplace(event.request, num_steps);
        order.push_back(event.request);
      }
    }
    driver_.events.clear();
    return batch;
  }
  void run() {
    for (int i = 0; !driver_.is_idle(); ++i) {
      ASSERT_LT(i, 20'000);
      step();
    }
  }
  // Steps from now until the first token of the request.
  int steps_until_first_token(RequestId id) {
    const int begin = num_steps;
    for (int i = 0; i < 1000 && !first_token.count(id); ++i) step();
    return first_token.at(id) - begin;
  }
  SchedulerStats stats() const { return driver_.scheduler.stats(); }
  SchedulerDriver& driver() { return driver_; }

  int num_steps = 0;
  std::map<RequestId, int> first_token, rows;
  std::vector<RequestId> order;  // of first tokens

 private:
  SchedulerDriver driver_;
  std::vector<RequestId> owner_;  // by sequence
};

TEST(Turns, AShortPromptBesideOneLongRequestHasItsFirstTokenWithinFourSteps) {
  for (const int depth : {1, kMaxStepsInFlight}) {
    for (const int steps_before : {0, 1, 3, 50}) {
      Turns turns(default_config(), one_group(64 * 128), depth);
      for (RequestId id = 1; id <= 48; ++id) turns.add(request(id, 2000, 2, 1));
      for (int i = 0; i < steps_before; ++i) turns.step();
      turns.add(request(100, 8, 2));
      EXPECT_LE(turns.steps_until_first_token(100), 4) << depth << " in flight, after " << steps_before;
    }
  }
}

// A row takes a millisecond, as of a big model on a CPU: then whoever comes would wait longer than max_wait_ms for
// the long request's prompts to be let in.
TEST(Turns, SoHasOneOnASlowMachineAndAMiddlingOneWaitsForOneTurn) {
  for (const int32_t length : {8, 128, 400}) {
    for (const int steps_before : {0, 1, 3, 9, 50}) {
      Turns turns(default_config(), one_group(64 * 128));
      turns.driver().step_time = [](const Batch& batch) {
        return std::chrono::milliseconds(static_cast<int>(batch.tokens.size()));
      };
      for (RequestId id = 1; id <= 48; ++id) turns.add(request(id, 2000, 2, 1));
      for (int i = 0; i < steps_before; ++i) turns.step();
      turns.add(request(100, length, 2));
      EXPECT_LE(turns.steps_until_first_token(100), length <= 128 ? 4 : 6) << length << " tokens, after " << steps_before;
    }
  }
}

// Rows of the steps in which a short prompt comes each time, beside one long request, on a machine where a step takes
// base_ms and a millisecond for each 10 rows.
std::vector<size_t> rows_while_short_ones_come(int base_ms) {
  SchedulerConfig config = default_config();
  config.enable_prefix_cache = false;
  Turns turns(config, one_group(64 * 128));
  turns.driver().step_time = [base_ms](const Batch& batch) {
    return std::chrono::microseconds(base_ms * 1000 + 100 * batch.tokens.size());
  };
  turns.add(request(1, 3, 4));
  turns.run();
  for (RequestId id = 2; id <= 40; ++id) turns.add(request(id, 2000, 1, 2));
  turns.step();
  std::vector<size_t> rows;
  for (RequestId id = 100; id < 106; ++id) {
    turns.add(request(id, 8, 1));
    rows.push_back(turns.step().tokens.size());
    EXPECT_EQ(turns.rows[id], 8);
  }
  return rows;
}

TEST(Turns, ShortPromptsGoWithoutTheLongOnesEveryOtherTimeWhereThatMakesTheirStepFarShorter) {
  using Rows = std::vector<size_t>;
  EXPECT_EQ(rows_while_short_ones_come(5), (Rows{8, 512, 8, 512, 8, 512}));
  EXPECT_EQ(rows_while_short_ones_come(40), (Rows{512, 512, 512, 512, 512, 512}))
      << "41 ms for 8 rows and 91 ms for 512";
}

// Who is late waits for the turns of those before it, however many prompts each of them still has.
TEST(Turns, ThoseThatComeLateWaitForOneTurnOfEachBeforeThem) {
  SchedulerConfig config = default_config();
  config.max_num_seqs = 8;
  Turns turns(config, one_group(64 * 128));
  turns.driver().step_time = [](const Batch&) { return std::chrono::milliseconds(200); };
  for (RequestId id = 1; id <= 60; ++id) turns.add(request(id, 1000, 4, id <= 30 ? 1 : 31));
  for (int i = 0; i < 9; ++i) turns.step();
  turns.add(request(100, 1000, 4, 100));
  EXPECT_LE(turns.steps_until_first_token(100), 20);
  turns.run();
  EXPECT_EQ(turns.first_token.size(), 61u);
}

// What those are told who find the queue full: the wait there is, at two speeds.
TEST(Turns, TheWaitOfTheLineIsForeseenByHowFastItMoves) {
  for (const int ms : {5, 20}) {
    SchedulerConfig config = default_config();
    config.max_num_seqs = 8;
    Turns turns(config, one_group(64 * 128));
    turns.driver().step_time = [ms](const Batch&) { return std::chrono::milliseconds(ms); };
    for (RequestId id = 1; id <= 400; ++id) {
      Request r = request(id, 32, 8);
      r.sampling.ignore_eos = true;
      turns.add(std::move(r));
    }
    for (int i = 0; i < 60; ++i) turns.step();
    const double foreseen = turns.stats().line_ms;
    const Time begin = turns.driver().now;
    while (turns.stats().num_waiting > 0) turns.step();
    const double waited = std::chrono::duration<double, std::milli>(turns.driver().now - begin).count();
    EXPECT_GT(waited, 100 * ms);
    EXPECT_NEAR(foreseen / waited, 1, 0.2) << ms << " ms a step";
    turns.run();
  }
}

TEST(Turns, SoHasOneWithoutASlotToSpareAsSoonAsOneIsFree) {
  SchedulerConfig config = default_config();
  config.max_num_seqs = 8;
  Turns turns(config, one_group(64 * 128));
  for (RequestId id = 1; id <= 48; ++id) turns.add(request(id, 100, 40, 1));
  for (int i = 0; i < 10; ++i) turns.step();
  turns.add(request(100, 8, 2));
  EXPECT_LE(turns.steps_until_first_token(100), 40)
      << "the first that ends makes way for it, not for its own";
}

TEST(Turns, AMiddlingPromptBesideOneLongRequestWaitsForOneTurn) {
  Turns turns(default_config(), one_group(64 * 128));
  for (RequestId id = 1; id <= 48; ++id) turns.add(request(id, 2000, 2, 1));
  for (int i = 0; i < 9; ++i) turns.step();
  turns.add(request(100, 400, 2));
  EXPECT_LE(turns.steps_until_first_token(100), 5);
}

TEST(Turns, FlowsShareTheRowsOfStepsHoweverManyPromptsEachHas) {
  Turns turns(default_config(), one_group(64 * 128));
  for (RequestId id = 1; id <= 30; ++id) turns.add(request(id, 1900, 1, 1));
  for (RequestId id = 31; id <= 40; ++id) turns.add(request(id, 1900, 1, 31));
  for (int i = 0; i < 60; ++i) {
    turns.step();
    int first = 0, second = 0;
    for (const auto& [id, rows] : turns.rows) (id <= 30 ? first : second) += rows;
    EXPECT_LE(std::abs(first - second), 4 * 512) << "a turn is four steps long";
  }
}

TEST(Turns, WhatAFlowIsGivenForShortPromptsIsTakenOffItsTurns) {
  SchedulerConfig config = default_config();
  config.max_wait_ms = 0;  // the short ones of one who is late have no part in the quarter
  Turns turns(config, one_group(64 * 128));
  RequestId next_short = 100;
  for (RequestId id = 1; id <= 20; ++id) turns.add(request(id, 1900, 1, 1));
  for (RequestId id = 31; id <= 50; ++id) turns.add(request(id, 1900, 1, 31));
  for (int i = 0; i < 60; ++i) {
    for (int k = 0; k < 4; ++k) turns.add(request(next_short++, 32, 1, 1));
    turns.step();
    int first = 0, second = 0;
    for (const auto& [id, rows] : turns.rows) (id <= 20 || id >= 100 ? first : second) += rows;
    EXPECT_LE(std::abs(first - second), 5 * 512) << "after " << i + 1 << " steps";
  }
}

TEST(Turns, NobodyIsLetInBeforeItsTurn) {
  Turns turns(default_config(), one_group(64 * 128));
  turns.add(request(1, 2000, 1));
  turns.step();
  turns.add(request(2, 2000, 1));
  for (int i = 1; i < 3; ++i) {
    turns.step();
    EXPECT_EQ(turns.stats().num_waiting, 1) << "a turn is four steps long";
  }
  turns.run();
  EXPECT_EQ(turns.rows[2], 2000);
}

// A step of this device takes 20 ms and 1 ms a row.
int longest_step_ms(const SchedulerConfig& config, bool somebody_decodes, int* num_steps) {
  Turns turns(config, one_group(64 * 128));
  if (somebody_decodes) turns.add(request(1, 8, 1000));
  const auto ms_of = [](const Batch& batch) { return 20 + static_cast<int>(batch.tokens.size()); };
  turns.driver().step_time = [&](const Batch& batch) { return std::chrono::milliseconds(ms_of(batch)); };
  int longest = 0;
  const auto step = [&] { longest = std::max(longest, ms_of(turns.step())); };
  for (int i = 0; i < 20; ++i) step();
  turns.add(request(2, 400, 1, 2));  // from which it learns
  while (!turns.first_token.count(2)) step();
  longest = *num_steps = 0;
  turns.add(request(3, 2000, 1, 3));
  for (; !turns.first_token.count(3); ++*num_steps) step();
  return longest;
}

TEST(Turns, AStepBesideThoseThatDecodeTakesNoLongerThanItsBudget) {
  SchedulerConfig config = default_config();
  config.step_budget_ms = 100;
  int num_steps = 0;
  EXPECT_LE(longest_step_ms(config, true, &num_steps), 110);
  EXPECT_LE(num_steps, 2000 / 60);
  EXPECT_GE(longest_step_ms(config, false, &num_steps), 500) << "nobody waits for it";
  config.step_budget_ms = 0;
  EXPECT_GE(longest_step_ms(config, true, &num_steps), 500);
}

TEST(Turns, PromptsGetOnHoweverLittleTheBudgetIs) {
  SchedulerConfig config = default_config();
  config.step_budget_ms = 1;
  int num_steps = 0;
  longest_step_ms(config, true, &num_steps);
  EXPECT_LE(num_steps, 2000 / 16 + 1);
}

TEST(Turns, TokensOfPromptsThatWaitAreCountedUntilTheyRun) {
  SchedulerConfig config = default_config();
  config.max_num_seqs = 1;
  Turns turns(config, one_group(64 * 128));
  for (RequestId id = 1; id <= 3; ++id) turns.add(request(id, 100 * static_cast<int>(id), 4));
  EXPECT_EQ(turns.stats().waiting_tokens, 600);
  turns.step();
  EXPECT_EQ(turns.stats().waiting_tokens, 500);
  turns.driver().take(Abort{3});
  EXPECT_EQ(turns.stats().waiting_tokens, 200);
  turns.run();
  EXPECT_EQ(turns.stats().waiting_tokens, 0);
}

TEST(Turns, WithinAFlowTheOldestGoesFirst) {
  SchedulerConfig config = default_config();
  config.max_prefill_chunk = 100;  // so that several run together
  Turns turns(config, one_group(64 * 128));
  for (RequestId id = 1; id <= 12; ++id) turns.add(request(id, 900, 1, 1));
  turns.run();
  std::vector<RequestId> expected(12);
  std::iota(expected.begin(), expected.end(), 1);
  EXPECT_EQ(turns.order, expected);
}

TEST(Turns, AQuarterOfAStepIsForPromptsThatFitItShortestFirst) {
  Turns turns(default_config(), one_group(64 * 128));
  turns.add(request(1, 2000, 1));
  turns.step();
  turns.add(request(2, 100, 1));
  turns.add(request(3, 60, 1));
  turns.add(request(4, 30, 1));
  turns.step();
  EXPECT_EQ(turns.rows[4], 30);
  EXPECT_EQ(turns.rows[3], 60) << "128 rows hold the two shortest";
  EXPECT_EQ(turns.rows[2], 0);
  EXPECT_EQ(turns.rows[1], 512 + 512 - 90) << "the rest is for the flow whose turn it is";
}

TEST(Turns, DecodesKeepTheirRowsBesideAPromptOfAnyLength) {
  SchedulerConfig config = default_config();
  config.max_num_seqs = config.max_num_batched_tokens = config.max_prefill_chunk = 8;
  Turns turns(config, one_group(1000));
  turns.add(request(1, 500, 1));
  for (RequestId id = 2; id <= 8; ++id) turns.add(request(id, 1, 400));
  for (int i = 0; i < 30; ++i) turns.step();
  for (int i = 0; i < 20; ++i) {
    const Batch& batch = turns.step();
    ASSERT_EQ(batch.seqs.size(), 8u);
    EXPECT_EQ(batch.tokens.size(), 8u) << "a row for each of seven streams, and one for the prompt";
  }
}

TEST(Turns, NobodyOvertakesTheFirstThatLacksMemoryExceptShortOnesUpToItsSize) {
  SchedulerConfig config = default_config();
  config.enable_prefix_cache = false;
  Turns turns(config, one_group(60));
  Request holder = request(1, 640, 200);  // 40 blocks, and more as it draws
  holder.sampling.ignore_eos = true;
  turns.add(holder);
  turns.step();
  turns.step();
  turns.add(request(2, 400, 1));  // 25 blocks: does not fit
  turns.add(request(3, 140, 1));  // would fit, and is not short
  for (int i = 0; i < 5; ++i) turns.step();
  EXPECT_EQ(turns.rows[2] + turns.rows[3], 0);
  for (RequestId id = 10; id < 60; ++id) turns.add(request(id, 30, 1));
  for (int i = 0; i < 20; ++i) turns.step();
  int overtook = 0;
  for (RequestId id = 10; id < 60; ++id) overtook += turns.rows[id] > 0;
  EXPECT_EQ(overtook, 400 / 31) << "together they have asked for what the first asks";
  EXPECT_EQ(turns.rows[2] + turns.rows[3], 0);
  turns.run();
  EXPECT_LT(turns.first_token[2], turns.first_token[3]);
}

TEST(Turns, WhoLacksMemoryTakesItFromTheLastInLineAndFromNobodyElse) {
  SchedulerConfig config = default_config();
  config.enable_prefix_cache = false;
  Turns turns(config, one_group(26, 8));
  turns.add(request(9, 4, 1));  // short answers are expected from here on
  turns.run();
  for (RequestId id = 1; id <= 4; ++id) turns.add(request(id, 40, 30));
  while (turns.stats().num_preemptions == 0) {
    ASSERT_LT(turns.num_steps, 200);
    turns.step();
  }
  for (int i = 0; i < 3; ++i) {  // the last gave way, the others go on
    const Batch& batch = turns.step();
    ASSERT_EQ(batch.seqs.size(), 3u);
    for (const SeqStep& s : batch.seqs) EXPECT_LE(s.seq, 4u) << "sequences 2, 3 and 4 are requests 1 to 3";
  }
  turns.run();
  EXPECT_EQ(turns.first_token.size(), 5u);
}

// A younger prompt whose turn it is finds no block, and the older is not in that step.
TEST(Turns, NobodyGivesWayForOneBehindIt) {
  SchedulerConfig config = default_config();
  config.enable_prefix_cache = false;
  config.max_num_batched_tokens = config.max_prefill_chunk = 24;
  config.max_num_seqs = 12;
  uint64_t gave_way = 0;
  for (int blocks = 78; blocks < 100; ++blocks) {
    Turns turns(config, one_group(blocks));
    turns.add(request(9, 4, 1));  // short answers are expected from here on
    turns.run();
    for (RequestId id = 1; id <= 8; ++id) turns.add(request(id, 8, 120));
    turns.step();
    turns.add(request(20, 640, 1));
    turns.add(request(21, 480, 1));
    turns.run();
    EXPECT_EQ(turns.rows[20], 640) << blocks;
    gave_way += turns.stats().num_preemptions;
  }
  EXPECT_GT(gave_way, 0u);
}

// Of a group with windows too: as many run as their windows have room for.
TEST(Turns, NobodyIsLetInWhoseWindowHasNoRoom) {
  SchedulerConfig config = default_config();
  config.max_prefill_chunk = 64;
  BlockGeometry geometry = one_group(1000);
  geometry.num_groups = 2;
  geometry.groups[1] = {.num_blocks = 40, .window = 128};
  Turns turns(config, geometry);
  for (RequestId id = 1; id <= 16; ++id) {
    Request r = request(id, 200, 100);
    r.sampling.ignore_eos = true;
    turns.add(std::move(r));
  }
  turns.run();
  EXPECT_EQ(turns.stats().num_preemptions, 0u);
}

// 160 requests of 500 tokens each way or so, 32 slots, and half of the memory that they would need at their full length.
struct UnderPressure {
  double steps = 0, rows_of_useful = 0;
};
UnderPressure under_pressure(int jitter, unsigned seed) {
  SchedulerConfig config = default_config();
  config.max_num_seqs = 32;
  Scheduler scheduler(config, one_group(32 * 63 / 2));
  std::mt19937 random(seed);
  double useful = 0;
  for (RequestId id = 1; id <= 160; ++id) {
    const auto length = [&] {
      return 500 + (jitter > 0 ? static_cast<int>(random() % (2 * jitter)) - jitter : 0);
    };
    Request r = request(id, length(), length());
    for (size_t i = 0; i < r.prompt.size(); ++i) r.prompt[i] = static_cast<TokenId>(i * 1000 + id);
    r.sampling.ignore_eos = true;
    useful += static_cast<double>(r.prompt.size()) + r.sampling.max_tokens - 1;
    testing::add(scheduler, std::move(r), Time{0});
  }
  UnderPressure result;
  Batch batch;
  ModelOutput output;
  EventBatch events;
  double rows = 0;
  for (int64_t step = 0;; ++step) {
    scheduler.next_batch(Time{step}, batch);
    result.steps = static_cast<double>(step);
    if (batch.empty()) break;
    rows += static_cast<double>(batch.tokens.size());
    output.clear();
    output.step = batch.step;
    for (const SeqStep& s : batch.seqs) {
      output.seqs.push_back({.seq = s.seq,
                             .tokens_begin = static_cast<int32_t>(output.tokens.size()),
                             .num_tokens = s.sample ? 1 : 0});
      if (s.sample) output.tokens.push_back({.token = 1});
    }
    scheduler.apply(output, Time{step}, events);
    events.clear();
  }
  result.rows_of_useful = rows / useful;
  return result;
}

// One mix alone says little: a request more or less in a step moves all that come behind it.
UnderPressure mean_under_pressure(int jitter) {
  constexpr unsigned kMixes = 20;
  UnderPressure mean;
  for (unsigned seed = 1; seed <= kMixes; ++seed) {
    const UnderPressure one = under_pressure(jitter, seed);
    mean.steps += one.steps / kMixes;
    mean.rows_of_useful += one.rows_of_useful / kMixes;
  }
  return mean;
}

TEST(Turns, MemoryIsKeptForThoseThatRunSoThatLittleIsComputedTwice) {
  // Mean lengths' spread, and the steps that it takes without the reserve, when rows are 1.33, 1.31 and 1.29 of the useful ones.
  const std::pair<int, double> mixes[] = {{20, 4029}, {100, 4096}, {200, 4144}};
  for (const auto& [jitter, steps] : mixes) {
    const UnderPressure mean = mean_under_pressure(jitter);
    EXPECT_LE(mean.rows_of_useful, 1.15) << jitter;
    EXPECT_LE(mean.steps, 1.012 * steps) << jitter;
  }
}

TEST(Turns, RowsOfPromptsAreComputedForLogprobsOnceHoweverManyAreDrawn) {
  for (const int max_tokens : {1, 5}) {  // with 1 the first choice is gone before the others begin
    Turns turns(default_config(), one_group(1000));
    Request r = request(1, 1000, max_tokens);
    r.n = 4;
    r.sampling.num_prompt_logprobs = 1;
    r.sampling.ignore_eos = true;
    turns.add(r);
    int rows_with_logprobs = 0;
    while (!turns.driver().is_idle()) {
      for (const SeqStep& s : turns.step().seqs) rows_with_logprobs += s.prompt_logprobs ? s.num_tokens : 0;
    }
    EXPECT_EQ(turns.rows[1], 1000 + 3 + 4 * (max_tokens - 1));
    EXPECT_EQ(rows_with_logprobs, 1000);
    EXPECT_EQ(turns.stats().prompt_tokens_computed, 1003u);
  }
}

TEST(Turns, APromptThatGaveWayReportsTheRestOfItsLogprobsAndReadsTheCacheForWhatItHasReported) {
  SchedulerConfig config = default_config();
  config.max_num_batched_tokens = config.max_prefill_chunk = 64;
  Turns turns(config, one_group(40));
  turns.add(request(9, 4, 1));  // short answers are expected from here on
  turns.run();
  turns.add(request(1, 100, 300));  // grows to 25 blocks
  Request r = request(2, 350, 100);
  r.sampling.num_prompt_logprobs = 0;
  turns.add(r);
  int rows_with_logprobs = 0;
  while (!turns.driver().is_idle()) {
    ASSERT_LT(turns.num_steps, 3000);
    for (const SeqStep& s : turns.step().seqs) rows_with_logprobs += s.prompt_logprobs ? s.num_tokens : 0;
  }
  EXPECT_GT(turns.stats().num_preemptions, 0u);
  EXPECT_LT(rows_with_logprobs, 350 + 64) << "at most one chunk of them is computed again";
}

}  // namespace
}  // namespace serval::testing
