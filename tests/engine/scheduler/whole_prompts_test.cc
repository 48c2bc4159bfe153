// Prompts of an encoder: a step has all of one or nothing of it.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "tests/engine/scheduler/scheduler_driver.h"

namespace serval::testing {
namespace {

constexpr int kLongest = 200, kUsualRows = 64, kSlots = 8;

SchedulerConfig whole_config() {
  return {.max_num_seqs = kSlots, .max_num_batched_tokens = kLongest + kSlots, .max_prefill_chunk = kUsualRows, .max_model_len = kLongest,
          .step_budget_ms = 0, .enable_prefix_cache = false, .whole_prompts = true};
}

Request text(RequestId id, int length, uint64_t flow = 0) {
  Request r = request(id, length, 1, flow);
  r.sampling.ignore_eos = true;
  r.pooling = Pooling::kMean;
  return r;
}

// Every row of a step is of a prompt that the step has from its first to its last.
void expect_whole(const Batch& batch, const std::map<SeqId, int>& lengths) {
  int rows = 0;
  for (const SeqStep& step : batch.seqs) {
    EXPECT_EQ(step.first_pos, 0);
    EXPECT_TRUE(step.sample);
    EXPECT_EQ(step.num_tokens, lengths.at(step.seq));
    rows += step.num_tokens;
  }
  EXPECT_LE(rows, kLongest + kSlots);
  if (batch.seqs.size() > 1) {
    EXPECT_LE(rows - kSlots, kUsualRows) << "one alone may be longer";
  }
}

TEST(WholePrompts, AreNeverCutWhateverTheMemory) {
  for (const int depth : {1, kMaxStepsInFlight}) {
    for (const int blocks : {(kLongest + 15) / 16, 20, 400}) {
      SchedulerDriver driver(whole_config(), one_group(blocks), depth);
      std::mt19937 random(static_cast<unsigned>(blocks));
      std::map<SeqId, int> lengths;
      constexpr RequestId kTexts = 300;
      RequestId next = 1;
      for (int turn = 0; next <= kTexts || driver.scheduler.has_work(); ++turn) {
        ASSERT_LT(turn, 5000) << depth << ", " << blocks << " blocks";
        for (int i = 0; i < 3 && next <= kTexts && driver.scheduler.has_place(1); ++i, ++next) {
          const int length = random() % 4 == 0 ? 1 + static_cast<int>(random() % kLongest) : 1 + static_cast<int>(random() % 20);
          lengths[next] = length;  // sequences are numbered as they come
          driver.add(text(next, length, 1 + next % 5));
        }
        expect_whole(driver.turn(), lengths);
      }
      size_t num_ended = 0;
      for (const TokenEvent& event : driver.events.events) num_ended += event.finish == FinishReason::kLength;
      EXPECT_EQ(num_ended, kTexts);
    }
  }
}

TEST(WholePrompts, ALongOneIsNotKeptWaitingByShortOnesThatComeAllTheTime) {
  SchedulerDriver driver(whole_config(), one_group(400), 1);
  RequestId next = 1;
  for (; next <= 30; ++next) driver.add(text(next, 20));
  const RequestId long_one = next++;
  driver.add(text(long_one, kLongest));
  for (int turn = 0; turn < 40; ++turn) {
    for (int i = 0; i < 3; ++i) driver.add(text(next++, 20));
    driver.add(text(next++, 1));
    driver.turn();
  }
  const auto is_its_end = [&](const TokenEvent& event) { return event.request == long_one && event.finish == FinishReason::kLength; };
  EXPECT_TRUE(std::ranges::any_of(driver.events.events, is_its_end));
}

TEST(WholePrompts, AskForAStepThatHoldsTheLongestBesideOneRowOfEach) {
  SchedulerConfig config = whole_config();
  check_scheduler_config(config);
  --config.max_num_batched_tokens;
  EXPECT_THROW(check_scheduler_config(config), std::runtime_error);
}

}  // namespace
}  // namespace serval::testing
