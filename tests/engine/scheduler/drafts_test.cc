// Guesses verified many at a time, by example: who gets rows for them, what a step leaves of them, who waits.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>

#include "tests/engine/scheduler/scheduler_driver.h"

namespace serval::testing {
namespace {

constexpr int kBlockSize = 8, kNumDrafts = 6;

class Drafts : public ::testing::Test {
 protected:
  Drafts() {
    config_.max_num_seqs = 4;
    config_.max_num_batched_tokens = config_.max_prefill_chunk = 32;
    config_.max_model_len = 128;
    config_.num_draft_tokens = kNumDrafts;
    geometry_.block_size = kBlockSize;
    geometry_.groups[0].num_blocks = 64;
  }
  // The drafter sees `ahead` of what comes, then errs.
  void start(int depth, int ahead = kNumDrafts) {
    driver_.emplace(config_, geometry_, depth);
    driver_->runner.propose = [this, ahead](const std::vector<TokenId>& known, uint64_t seed,
                                            std::vector<Draft>& guesses) {
      std::vector<TokenId> truth = known;
      for (int i = 0; i < num_guesses_; ++i) {
        truth.push_back(driver_->runner.next_token(truth, seed));
        guesses.push_back({i < ahead ? truth.back() : (truth.back() + 1) % 50, i - 1});
      }
    };
  }
  const Batch& turn() {
    const Batch& batch = driver_->turn();
    for (const TokenEvent& event : driver_->events.events) {
      if (event.token >= 0) tokens_[event.request].push_back(event.token);
      finish_[event.request] = event.finish;
    }
    driver_->events.clear();
    return batch;
  }
  std::vector<TokenId> alone(const Request& r, int count) const {
    std::vector<TokenId> history = r.prompt;
    for (int i = 0; i < count; ++i) history.push_back(driver_->runner.next_token(history, r.sampling.seed));
    return {history.begin() + static_cast<int>(r.prompt.size()), history.end()};
  }
  int num_held() const {
    const SchedulerStats stats = driver_->scheduler.stats();
    return stats.num_blocks - stats.num_free_blocks - stats.num_cached_blocks;
  }

  SchedulerConfig config_;
  BlockGeometry geometry_;
  int num_guesses_ = kNumDrafts;
  std::optional<SchedulerDriver> driver_;
  std::map<RequestId, std::vector<TokenId>> tokens_;
  std::map<RequestId, FinishReason> finish_;
};

TEST_F(Drafts, AStepDrawsAsManyTokensAsCameTrueAndOneMore) {
  start(1, 2);
  const Request r = request(1, 10, 20);
  driver_->add(r);
  std::vector<size_t> told;
  std::vector<int> first_pos, rows;
  for (int i = 0; i < 4; ++i) {
    const Batch& batch = turn();
    first_pos.push_back(batch.seqs[0].first_pos);
    rows.push_back(batch.seqs[0].num_tokens);
    told.push_back(tokens_[1].size());
  }
  EXPECT_EQ(told, (std::vector<size_t>{1, 4, 7, 10}));
  EXPECT_EQ(first_pos, (std::vector<int>{0, 10, 13, 16}));
  EXPECT_EQ(rows, (std::vector<int>{10, 7, 7, 7}));
  while (!driver_->is_idle()) turn();
  EXPECT_EQ(tokens_[1], alone(r, 20));
  const SchedulerStats stats = driver_->scheduler.stats();
  EXPECT_EQ(stats.num_drafts, 6u) << "the last token needs no guess";
  EXPECT_EQ(stats.num_accepted_tokens, 12u);
}

TEST_F(Drafts, BlocksOfWhatDidNotComeTrueGoBackWithTheStep) {
  start(1, 0);
  driver_->add(request(1, 14, 20));
  turn();
  EXPECT_EQ(num_held(), 2);
  const Batch& batch = turn();  // position 14 and guesses up to 20
  EXPECT_EQ(batch.seqs[0].first_block[0] + batch.seqs[0].num_blocks[0], 3);
  EXPECT_EQ(num_held(), 2) << "only 15 positions are computed";
  turn();
  EXPECT_EQ(num_held(), 2);
}

TEST_F(Drafts, NoGuessStandsWhereMaxTokensLeavesNoRoom) {
  start(1);
  const Request r = request(1, 10, 5);
  driver_->add(r);
  turn();
  EXPECT_EQ(turn().seqs[0].num_drafts, 3) << "three guesses and the token behind them";
  EXPECT_EQ(tokens_[1], alone(r, 5));
  EXPECT_EQ(finish_[1], FinishReason::kLength);
}

TEST_F(Drafts, AnEndInsideDropsWhatIsBehindIt) {
  start(1);
  Request r = request(1, 10, 20);
  const std::vector<TokenId> all = alone(r, 4);
  r.sampling.eos_token_ids = {all[3]};
  driver_->add(r);
  turn();
  turn();
  EXPECT_EQ(tokens_[1], all);
  EXPECT_EQ(finish_[1], FinishReason::kStop);
  EXPECT_EQ(num_held(), 0);
}

TEST_F(Drafts, WhoHasGuessesWaitsForItsStepAndNobodyElseDoes) {
  start(kMaxStepsInFlight);
  driver_->runner.propose = [this](const std::vector<TokenId>& known, uint64_t seed,
                                   std::vector<Draft>& guesses) {
    if (seed == 0) return;
    guesses.push_back({driver_->runner.next_token(known, seed), -1});
  };
  Request guessing = request(1, 10, 20);
  guessing.sampling.seed = 1;
  driver_->add(guessing);
  driver_->add(request(2, 10, 20));
  int turns = 0, steps_of_other = 0;
  for (; finish_[2] == FinishReason::kNone; ++turns) {
    const Batch& batch = turn();
    for (const SeqStep& step : batch.seqs) {
      steps_of_other += step.seq == 2;
      if (step.seq == 1) {
        EXPECT_TRUE(step.num_drafts == 0 || batch.tokens[step.tokens_begin] != kTokenOnDevice);
      }
    }
  }
  EXPECT_EQ(steps_of_other, 20);
  EXPECT_EQ(turns, 21) << "a step of its own each turn";
  EXPECT_EQ(tokens_[1], alone(guessing, 20));
}

TEST_F(Drafts, WhatATokenConfirmsOfGuessesThatCameLateIsStillGood) {
  start(kMaxStepsInFlight);
  const Request r = request(1, 10, 20);
  driver_->add(r);
  turn();  // the prompt, whose draw comes with guesses
  num_guesses_ = 0;
  turn();  // its token's row is planned before they are there: they begin where that row's draw is
  EXPECT_TRUE(turn().empty()) << "the sequence waits";
  EXPECT_EQ(tokens_[1].size(), 2u);
  const Batch& batch = turn();
  ASSERT_EQ(batch.seqs.size(), 1u);
  EXPECT_EQ(batch.seqs[0].num_drafts, kNumDrafts - 1);
  turn();
  EXPECT_EQ(tokens_[1].size(), 2u + kNumDrafts);
}

TEST_F(Drafts, GuessesTakeAQuarterOfAStepAndNoDecodesRow) {
  start(1);
  for (RequestId id = 1; id <= 4; ++id) driver_->add(request(id, 4, 40));
  turn();
  const Batch& batch = turn();
  ASSERT_EQ(batch.seqs.size(), 4u);
  std::vector<int> drafts;
  for (const SeqStep& step : batch.seqs) drafts.push_back(step.num_drafts);
  EXPECT_EQ(drafts, (std::vector<int>{6, 2, 0, 0})) << "the oldest first, 8 of 32 rows";
  config_.max_num_batched_tokens = 4;
  start(1);
  for (RequestId id = 11; id <= 14; ++id) driver_->add(request(id, 1, 40));
  for (int i = 0; i < 5; ++i) turn();
  for (const SeqStep& step : turn().seqs) EXPECT_EQ(step.num_drafts, 0) << "no row is left";
}

TEST_F(Drafts, NobodyGivesWayForAGuess) {
  geometry_.groups[0].num_blocks = 6;
  config_.enable_prefix_cache = false;
  start(1);
  // Each has two blocks and a half when they decode, three of six at most: guesses would need a fourth.
  driver_->add(request(1, 18, 5));
  driver_->add(request(2, 18, 5));
  for (int i = 0; i < 40 && !driver_->is_idle(); ++i) turn();
  EXPECT_EQ(driver_->scheduler.stats().num_preemptions, 0u);
  EXPECT_EQ(tokens_[1].size(), 5u);
  EXPECT_EQ(tokens_[2].size(), 5u);
}

// A mask of one word says whose it is: 100 for the next token, 1 + the number among those that are left behind a guess.
struct NumberedMasks : TokenConstraint {
  void drew(int, std::span<const TokenId> tokens, int32_t place, std::span<const Draft> drafts) override {
    num_output = place + static_cast<int>(tokens.size());
    num_drafts = static_cast<int>(drafts.size());
  }
  std::span<const uint32_t> mask(int, int draft) const override { return std::span(words).subspan(draft + 1, 1); }
  std::vector<uint32_t> words = {100, 1, 2, 3, 4, 5, 6, 7};
  int num_output = 0, num_drafts = 0;
};

TEST_F(Drafts, OfAConstrainedSequenceThoseAreVerifiedThatMayBeDrawn) {
  config_.mask_words = 1;
  start(1);
  const auto masks = std::make_shared<NumberedMasks>();
  Request r = request(1, 10, 20);
  r.constrained = true;
  r.constraint = masks;
  const std::vector<TokenId> all = alone(r, 20);
  driver_->masks_come_at_once = false;
  driver_->add(r);
  turn();
  EXPECT_EQ(masks->num_output, 1);
  EXPECT_EQ(masks->num_drafts, kNumDrafts);
  EXPECT_TRUE(turn().empty()) << "no mask, no draw";
  driver_->take(MaskReady{1, 0, 2, 0b101011});  // a chain: what stands behind the third goes with it
  const Batch& batch = turn();
  ASSERT_EQ(batch.seqs.size(), 1u);
  EXPECT_EQ(batch.seqs[0].num_drafts, 2);
  EXPECT_EQ(batch.masks, (std::vector<uint32_t>{100, 1, 2}));
  EXPECT_EQ(tokens_[1].size(), 4u);
  EXPECT_EQ(masks->num_output, 4) << "all that the step drew at once";
  driver_->take(MaskReady{1, 0, 5, 0});
  EXPECT_EQ(turn().masks, (std::vector<uint32_t>{100}));
  driver_->masks_come_at_once = true;
  driver_->take(MaskReady{1, 0, 6});
  while (!driver_->is_idle()) turn();
  EXPECT_EQ(tokens_[1], all);
}

// One that waited for its mask with guesses to compute again finds the step full of others.
TEST_F(Drafts, OverAStateTakeNobodysRow) {
  constexpr int kSeqs = 8;
  config_.mask_words = 1;
  config_.max_num_seqs = config_.max_num_batched_tokens = config_.max_prefill_chunk = kSeqs;
  geometry_.groups[0] = {.num_blocks = 64, .state_span = 4 * kBlockSize};
  num_guesses_ = 2;  // a quarter of the rows
  start(1, 2);
  const auto masks = std::make_shared<NumberedMasks>();
  Request first = request(1, 1, 20);
  first.constrained = true;
  first.constraint = masks;
  driver_->masks_come_at_once = false;
  driver_->add(first);
  turn();
  driver_->take(MaskReady{1, 0, 2, 0b11});
  ASSERT_EQ(turn().seqs[0].num_drafts, 2);
  ASSERT_EQ(tokens_[1].size(), 4u);
  num_guesses_ = 0;
  for (RequestId id = 2; id <= kSeqs; ++id) driver_->add(request(id, 1, 20));
  EXPECT_EQ(turn().seqs.size(), kSeqs - 1u) << "no mask, no draw";
  driver_->take(MaskReady{1, 0, 5, 0});
  for (int replayed = 0; replayed < 3; ++replayed) {
    const Batch& batch = turn();
    EXPECT_EQ(batch.seqs.size(), static_cast<size_t>(kSeqs));
    for (const SeqStep& step : batch.seqs) EXPECT_EQ(step.num_tokens, 1) << step.seq;
  }
  EXPECT_EQ(tokens_[1].size(), 5u) << "two rows again, then the one that draws";
}

TEST_F(Drafts, WhatTheFormForcesIsAGuessWhereThereIsNoOther) {
  config_.mask_words = 1;
  num_guesses_ = 0;
  start(1);
  const auto masks = std::make_shared<NumberedMasks>();
  Request r = request(1, 10, 20);
  r.constrained = true;
  r.constraint = masks;
  const std::vector<TokenId> all = alone(r, 20);
  driver_->masks_come_at_once = false;
  driver_->add(r);
  turn();
  const auto force = [&](int from, int count, TokenId wrong = 0) {
    MaskReady ready{.request = 1, .num_masks = from + 1, .drafts = 0, .num_forced = count};
    for (int i = 0; i < count; ++i) ready.forced[i] = all[from + i] + wrong;
    driver_->take(ready);
  };
  force(1, 3);
  EXPECT_EQ(turn().masks, (std::vector<uint32_t>{100, 1, 2, 3}));
  EXPECT_EQ(tokens_[1].size(), 5u) << "three that came true and one more";
  num_guesses_ = kNumDrafts;
  force(5, 2, 1);
  EXPECT_EQ(turn().seqs[0].num_drafts, 2);
  EXPECT_EQ(tokens_[1].size(), 6u) << "a wrong guess costs a row";
  EXPECT_EQ(masks->num_drafts, kNumDrafts);
  MaskReady others{.request = 1, .num_masks = 7, .num_forced = 1};
  driver_->take(others);
  EXPECT_EQ(turn().seqs[0].num_drafts, kNumDrafts) << "those that were left";
  EXPECT_EQ(tokens_[1].size(), 13u);
  num_guesses_ = 0;
  driver_->take(MaskReady{.request = 1, .num_masks = 14, .drafts = 0});
  turn();
  MaskReady many{.request = 1, .num_masks = 15, .num_forced = kMaxForced};
  std::fill(many.forced, many.forced + kMaxForced, all[14]);
  driver_->take(many);
  EXPECT_EQ(turn().seqs[0].num_drafts, std::min(kNumDrafts, 20 - 14 - 1)) << "no more than of others, nor than there is room for";
  driver_->masks_come_at_once = true;
  driver_->take(MaskReady{.request = 1, .num_masks = static_cast<int32_t>(tokens_[1].size()) + 1});
  while (!driver_->is_idle()) turn();
  EXPECT_EQ(tokens_[1], all);
  const DrafterStats& of_form = driver_->scheduler.stats().drafters[static_cast<int>(DrafterKind::kGrammar)];
  EXPECT_EQ(of_form.drafted[0], 3u);
  EXPECT_EQ(of_form.accepted[0], 2u);
}

TEST(KeepDrafts, LeavesWholeBranchesAndTellsWhoGuessed) {
  //  5 ── 6 ── 7      9 ── 6
  //   └── 8
  const std::vector<Draft> all = {{5, -1}, {6, 0}, {9, -1, DrafterKind::kDraft}, {8, 0}, {7, 1}, {6, 2, DrafterKind::kDraft}};
  std::vector<Draft> drafts = all;
  keep(drafts, 0b111011);  // without the 9
  EXPECT_EQ(drafts.size(), 4u);
  drafts = all;
  keep(drafts, 0b111101);  // without the first 6
  const std::vector<std::pair<TokenId, int>> expected = {{5, -1}, {9, -1}, {8, 0}, {6, 1}};
  ASSERT_EQ(drafts.size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ((std::pair(drafts[i].token, drafts[i].parent)), expected[i]) << i;
  EXPECT_EQ(drafts[3].by, DrafterKind::kDraft);
  follow(drafts, 9);
  EXPECT_EQ(drafts[0].by, DrafterKind::kDraft);
}

TEST(FollowDrafts, LeavesTheBranchThatGoesOn) {
  //  5 ── 6 ── 7      9 ── 6
  //   └── 8
  std::vector<Draft> drafts = {{5, -1}, {6, 0}, {9, -1}, {8, 0}, {7, 1}, {6, 2}};
  follow(drafts, 5);
  ASSERT_EQ(drafts.size(), 3u);
  const std::vector<std::pair<TokenId, int>> expected = {{6, -1}, {8, -1}, {7, 0}};
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ((std::pair(drafts[i].token, drafts[i].parent)), expected[i]) << i;
  follow(drafts, 8);
  EXPECT_TRUE(drafts.empty());
  follow(drafts, 8);
  EXPECT_TRUE(drafts.empty());
}

}  // namespace
}  // namespace serval::testing
