#include "engine/runner/draft_policy.h"

#include <gtest/gtest.h>

namespace serval::testing {
namespace {

constexpr auto kKind = DrafterKind::kDraft;

// Steps of a machine on which the weights take `base` ms and a row `per_row`.
void run_steps(DraftPolicy& policy, double base, double per_row) {
  for (int i = 0; i < 100; ++i) policy.learn_step(1 + i % 7, base + per_row * (1 + i % 7));
}
// A sequence whose guesses come true `came_true` of `tried` at a time.
void verify(DraftPolicy& policy, SlotId slot, int tried, int came_true) {
  for (int i = 0; i < 40; ++i) policy.learn_verified(slot, kKind, tried, came_true);
}

TEST(DraftPolicy, GuessesDeeperTheMoreComesTrue) {
  DraftPolicy policy(4);
  run_steps(policy, 10, 0.2);
  int last = 0;
  for (const int came_true : {1, 2, 4, 7}) {
    verify(policy, 0, 8, came_true);
    const int depth = policy.choose(0, kKind, 1, 64).depth;
    EXPECT_GT(depth, last) << came_true;
    last = depth;
  }
  EXPECT_EQ(policy.choose(0, kKind, 1, 3).depth, 3) << "no more than is wanted";
}

TEST(DraftPolicy, GuessesLessTheMoreDecodeBesideAndTheDearerARowIs) {
  DraftPolicy cheap(1), dear(1);
  run_steps(cheap, 10, 0.1);
  run_steps(dear, 1, 1);
  verify(cheap, 0, 8, 4);
  verify(dear, 0, 8, 4);
  EXPECT_GT(cheap.choose(0, kKind, 1, 16).depth, 6);
  EXPECT_LT(cheap.choose(0, kKind, 64, 16).depth, cheap.choose(0, kKind, 1, 16).depth);
  EXPECT_LE(dear.choose(0, kKind, 1, 16).depth, 3);
  EXPECT_EQ(dear.choose(0, kKind, 64, 16).depth, 0) << "a row gives a token for certain, a guess only now and then";
}

TEST(DraftPolicy, AddsWhatAGuessCostsToMake) {
  DraftPolicy policy(1);
  run_steps(policy, 10, 0.1);
  verify(policy, 0, 8, 4);
  const int before = policy.choose(0, kKind, 1, 16).depth;
  for (int i = 0; i < 50; ++i) policy.learn_cost(kKind, 4, 4 * 3.0);
  const int after = policy.choose(0, kKind, 1, 16).depth;
  EXPECT_LT(after, before);
  EXPECT_GT(after, 0);
  for (int i = 0; i < 50; ++i) {
    policy.learn_cost(kKind, 0, 6);  // a prompt's rows
    policy.learn_cost(kKind, 4, 4 * 3.0);
  }
  EXPECT_LT(policy.choose(0, kKind, 1, 16).depth, after) << "somebody pays for what no guess came of";
  EXPECT_EQ(policy.choose(0, DrafterKind::kNgram, 1, 2).depth, 2) << "another's guesses cost nothing";
}

TEST(DraftPolicy, StopsWhereNothingComesTrueAndTriesAgainNowAndThen) {
  DraftPolicy policy(2);
  run_steps(policy, 10, 1.5);
  verify(policy, 0, 4, 0);
  verify(policy, 1, 4, 4);
  int tried = 0;
  for (int i = 0; i < 480; ++i) {
    const DraftPolicy::Choice choice = policy.choose(0, kKind, 1, 8);
    ASSERT_EQ(choice.gain, 0);
    ASSERT_LE(choice.depth, 1);
    tried += choice.depth;
  }
  EXPECT_EQ(tried, 10);
  EXPECT_GT(policy.choose(1, kKind, 1, 8).depth, 3) << "another sequence's luck is its own";
  policy.admit(0);
  EXPECT_GT(policy.choose(0, kKind, 1, 8).depth, 0) << "who comes is believed to be like all";
  verify(policy, 0, 4, 0);
  for (int i = 0; i < 500; ++i) policy.learn_verified(1, kKind, 4, 0);
  int given = 0;
  for (int i = 0; i < 32; ++i) {
    policy.admit(0);
    given += policy.choose(0, kKind, 1, 8).depth > 0;
  }
  EXPECT_EQ(given, 2) << "one in sixteen all the same";
}

TEST(DraftPolicy, BelievesNoStepThatWaitedForACore) {
  DraftPolicy policy(1);
  for (int i = 0; i < 400; ++i) {
    const int rows = i % 2 == 0 ? 1 : 5;
    policy.learn_step(rows, (1 + 0.1 * rows) * (i % 8 == 1 ? 8 : 1));  // one of four of the larger ones
    policy.learn_cost(kKind, 4, i % 10 == 0 ? 10 : 0.04);
  }
  verify(policy, 0, 4, 4);
  EXPECT_GT(policy.choose(0, kKind, 1, 4).depth, 2);
}

TEST(DraftPolicy, ForgetsAnOldPriceWhileItTriesASingleGuessNowAndThen) {
  DraftPolicy policy(1);
  run_steps(policy, 0.1, 1);
  verify(policy, 0, 2, 2);
  ASSERT_EQ(policy.choose(0, kKind, 1, 4).depth, 0) << "a row costs a step";
  for (int i = 0; i < 480; ++i) policy.learn_step(i % 48 == 0 ? 2 : 1, i % 48 == 0 ? 1.2 : 1.1);
  EXPECT_GT(policy.choose(0, kKind, 1, 4).depth, 2);
}

}  // namespace
}  // namespace serval::testing
