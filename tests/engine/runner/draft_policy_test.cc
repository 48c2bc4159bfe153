#include "engine/runner/draft_policy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace serval::testing {
namespace {

using Wish = DraftPolicy::Wish;
constexpr auto kKind = DrafterKind::kDraft;

// Steps of a machine on which so many rows take so long.
template <typename Ms>
void run_steps_of(DraftPolicy& policy, Ms ms) {
  constexpr int kMostRows = 24;
  for (int i = 0; i < 60 * kMostRows; ++i) policy.learn_step(1 + i % kMostRows, ms(1 + i % kMostRows));
}
void run_steps(DraftPolicy& policy, double base, double per_row) {
  run_steps_of(policy, [&](int rows) { return base + per_row * rows; });
}
// A sequence whose guesses come true `came_true` of `tried` at a time.
void verify(DraftPolicy& policy, SlotId slot, int tried, int came_true, DrafterKind kind = kKind) {
  for (int i = 0; i < 40; ++i) policy.learn(slot, kind, tried, came_true);
}
// One sequence's, where so many decode.
Wish choose(DraftPolicy& policy, SlotId slot, int num_decoding, int most) {
  Wish wish = {.slot = slot, .kind = kKind, .most = most};
  policy.choose({&wish, 1}, num_decoding);
  return wish;
}
// Those of sequences 0, 1, .. that are alike.
std::vector<Wish> wishes_of(int num_seqs, int most, bool is_made) {
  std::vector<Wish> wishes;
  for (int i = 0; i < num_seqs; ++i) wishes.push_back({.slot = i, .kind = kKind, .most = most, .is_made = is_made});
  return wishes;
}
int sum_of_depths(const std::vector<Wish>& wishes) {
  int sum = 0;
  for (const Wish& wish : wishes) sum += wish.depth;
  return sum;
}

TEST(DraftPolicy, GuessesDeeperTheMoreComesTrue) {
  int last = 0;
  for (const int came_true : {1, 2, 4, 7}) {
    DraftPolicy policy(4);
    run_steps(policy, 10, 1);
    verify(policy, 0, 8, came_true);
    const int depth = choose(policy, 0, 1, 24).depth;
    EXPECT_GT(depth, last) << came_true;
    last = depth;
    EXPECT_EQ(choose(policy, 0, 1, 3).depth, std::min(depth, 3)) << "no more than is wanted";
  }
}

TEST(DraftPolicy, GuessesLessTheMoreDecodeBesideAndTheDearerARowIs) {
  DraftPolicy cheap(1), dear(1);
  run_steps(cheap, 10, 0.1);
  run_steps(dear, 1, 1);
  verify(cheap, 0, 8, 4);
  verify(dear, 0, 8, 4);
  EXPECT_GT(choose(cheap, 0, 1, 16).depth, 4);
  EXPECT_LT(choose(cheap, 0, 64, 16).depth, choose(cheap, 0, 1, 16).depth);
  EXPECT_LE(choose(dear, 0, 1, 16).depth, 4);
  choose(dear, 0, 64, 16);  // may be tried once
  EXPECT_EQ(choose(dear, 0, 64, 16).depth, 0) << "a row gives a token for certain, a guess only now and then";
}

TEST(DraftPolicy, GivesAllTogetherNoMoreRowsThanTheWeightsPayFor) {
  DraftPolicy policy(16);
  run_steps_of(policy, [](int rows) { return std::max(60.0, 5.0 * rows); });  // twelve rows take no longer than one
  for (SlotId slot = 0; slot < 16; ++slot) verify(policy, slot, 2, slot % 2);
  for (const int num_decoding : {1, 4, 8, 12, 16}) {
    std::vector<Wish> wishes = wishes_of(num_decoding, 8, true);
    policy.choose(wishes, num_decoding);
    const int rows = num_decoding + sum_of_depths(wishes);
    EXPECT_LE(rows, std::max(num_decoding, 12));
    EXPECT_GE(rows, std::min(12, 2 * num_decoding)) << "what costs nothing is tried";
  }
  std::vector<Wish> wishes = wishes_of(8, 8, true);
  policy.choose(wishes, 8);
  for (const Wish& wish : wishes) EXPECT_LE(wish.depth, wish.slot % 2 == 1 ? 8 : 0) << "who is right has them";
}

TEST(DraftPolicy, TriesNoStepFarLargerThanThoseThatItKnows) {
  DraftPolicy policy(8);
  for (int i = 0; i < 20; ++i) policy.learn_step(8, 60);
  for (SlotId slot = 0; slot < 8; ++slot) verify(policy, slot, 8, 8);
  std::vector<Wish> wishes = wishes_of(8, 8, true);
  policy.choose(wishes, 8);
  EXPECT_EQ(sum_of_depths(wishes), 4) << "64 rows more may cost any number of steps";
}

TEST(DraftPolicy, AddsWhatAGuessCostsToMake) {
  DraftPolicy policy(1);
  run_steps(policy, 10, 0.1);
  verify(policy, 0, 8, 4);
  const int before = choose(policy, 0, 1, 16).depth;
  for (int i = 0; i < 50; ++i) policy.learn_cost(kKind, 1, 4, 4 * 3.0);
  const int after = choose(policy, 0, 1, 16).depth;
  EXPECT_LT(after, before);
  EXPECT_GT(after, 0);
  for (int i = 0; i < 50; ++i) {
    policy.learn_cost(kKind, 0, 0, 60);  // a prompt's rows
    policy.learn_cost(kKind, 1, 4, 4 * 3.0);
  }
  EXPECT_LT(choose(policy, 0, 1, 16).depth, after) << "somebody pays for what no guess came of";
  Wish made = {.slot = 0, .kind = DrafterKind::kNgram, .most = 2, .is_made = true};
  policy.choose({&made, 1}, 1);
  EXPECT_EQ(made.depth, 2) << "another's guesses cost nothing";
}

TEST(DraftPolicy, ForgetsWhatPromptsCostWhereNobodyAsks) {
  DraftPolicy policy(1);
  run_steps(policy, 10, 0.1);
  verify(policy, 0, 4, 3);
  for (int i = 0; i < 50; ++i) {
    policy.learn_cost(kKind, 0, 0, 40);
    policy.learn_cost(kKind, 1, 1, 0.5);
  }
  ASSERT_EQ(choose(policy, 0, 1, 4).depth, 0);
  for (int i = 0; i < 2000; ++i) choose(policy, 0, 1, 4);
  int asked = 0;
  for (int i = 0; i < 100; ++i) asked += choose(policy, 0, 1, 4).depth > 0;
  EXPECT_EQ(asked, 100);
}

TEST(DraftPolicy, SharesADraftersTimeAmongThoseWhoAreWorthIt) {
  DraftPolicy policy(8);
  run_steps(policy, 40, 0.1);
  for (int i = 0; i < 50; ++i) policy.learn_cost(kKind, 1, 1, 4);
  for (SlotId slot = 0; slot < 8; ++slot) verify(policy, slot, 1, 0);
  for (SlotId slot = 0; slot < 8; ++slot) {
    for (int i = 0; i < 40; ++i) policy.learn(slot, kKind, 1, i % 2);
  }
  EXPECT_EQ(choose(policy, 0, 8, 1).depth, 0) << "half a token for a tenth of the time of eight";
  std::vector<Wish> wishes = wishes_of(8, 1, false);
  policy.choose(wishes, 8);
  EXPECT_EQ(sum_of_depths(wishes), 8);
}

TEST(DraftPolicy, AsksTheBetterOfTwoDraftersForASequence) {
  DraftPolicy policy(1);
  run_steps(policy, 10, 0.2);
  for (int i = 0; i < 50; ++i) policy.learn_cost(kKind, 1, 4, 4 * 0.5);
  verify(policy, 0, 4, 3);
  for (const int came_true : {0, 2, 4}) {
    verify(policy, 0, 4, came_true, DrafterKind::kNgram);
    Wish both[] = {{.slot = 0, .kind = DrafterKind::kNgram, .most = 4, .is_made = true}, {.slot = 0, .kind = kKind, .most = 4}};
    policy.choose(both, 1);
    EXPECT_EQ(both[0].depth > 0, came_true == 4) << came_true;
    EXPECT_EQ(both[1].depth > 0, came_true != 4) << came_true;
    EXPECT_TRUE(both[1].is_worth) << "it is followed for when the other finds nothing";
  }
}

TEST(DraftPolicy, KnowsThatGuessesFollowEachOtherFromChainsOfOne) {
  DraftPolicy policy(1);
  run_steps(policy, 10, 0.5);
  for (int i = 0; i < 80; ++i) policy.learn(0, kKind, 4, 1);
  ASSERT_LE(choose(policy, 0, 1, 8).depth, 2);
  for (int i = 0; i < 80; ++i) policy.learn(0, kKind, 1, 1);
  EXPECT_EQ(choose(policy, 0, 1, 8).depth, 8);
}

// So many steps of a sequence of which no guess comes true, each of which takes so long; of their tries.
int tries(DraftPolicy& policy, int num_steps, double guess_ms) {
  int tried = 0;
  for (int i = 0; i < num_steps; ++i) {
    policy.learn_step(1, 12);
    const Wish wish = choose(policy, 0, 1, 8);
    EXPECT_LE(wish.depth, 1);
    if (wish.depth == 0) continue;
    ++tried;
    policy.learn_cost(kKind, 1, 1, guess_ms);
    policy.learn(0, kKind, 1, 0);
  }
  return tried;
}

TEST(DraftPolicy, StopsWhereNothingComesTrueAndTriesAgainNowAndThen) {
  DraftPolicy policy(2);
  run_steps(policy, 10, 2);
  for (int i = 0; i < 5; ++i) verify(policy, 0, 4, 0);
  verify(policy, 1, 4, 4);
  const int tried = tries(policy, 480, 1);
  EXPECT_GE(tried, 15);
  EXPECT_LE(tried, 40);
  EXPECT_GT(choose(policy, 1, 1, 8).depth, 3) << "another sequence's luck is its own";
  verify(policy, 1, 4, 4);
  policy.admit(0);
  EXPECT_GT(choose(policy, 0, 1, 8).depth, 1) << "who comes is believed to be like all";
}

TEST(DraftPolicy, TriesOneOfThoseWhoComeAgainAsIfNothingWereKnownAsFarAsItsTimeGoes) {
  DraftPolicy policy(32);
  run_steps(policy, 10, 0.1);
  policy.learn_cost(kKind, 1, 1, 1);
  for (int i = 0; i < 500; ++i) policy.learn(1, kKind, 4, 0);
  const auto given = [&] {
    int sum = 0;
    for (SlotId slot = 0; slot < 32; ++slot) {
      policy.admit(slot);
      sum += choose(policy, slot, 1, 8).depth > 1;
    }
    return sum;
  };
  EXPECT_EQ(given(), 1) << "the first steps left something";
  EXPECT_EQ(given(), 0);
  for (int i = 0; i < 1000; ++i) policy.learn_step(1, 10);
  EXPECT_EQ(given(), 1);
  EXPECT_EQ(given(), 0) << "nothing was earned since";
}

TEST(DraftPolicy, TriesTheMoreSeldomTheDearerATryIs) {
  int tried[2] = {0, 0};
  for (const int is_dear : {0, 1}) {
    DraftPolicy policy(1);
    run_steps(policy, 10, 0.1);
    for (int i = 0; i < 50; ++i) policy.learn_cost(kKind, 1, 1, is_dear ? 20 : 1);
    for (int i = 0; i < 10; ++i) verify(policy, 0, 1, 0);
    tried[is_dear] = tries(policy, 40000, is_dear ? 20 : 1);
  }
  EXPECT_GT(tried[0], 2000) << "1 of 12 ms is spent at one percent: each twelfth step";
  EXPECT_LE(tried[1], 260);
  EXPECT_GE(tried[1], 180);
}

TEST(DraftPolicy, TriesNothingThatWasMadeForItIsKnownAnyway) {
  DraftPolicy policy(1);
  run_steps(policy, 1, 1);
  verify(policy, 0, 4, 0);
  for (int i = 0; i < 400; ++i) {
    Wish wish = {.slot = 0, .kind = kKind, .most = 4, .is_made = true};
    policy.choose({&wish, 1}, 1);
    ASSERT_EQ(wish.depth, 0);
  }
}

TEST(DraftPolicy, BelievesNoStepThatWaitedForACore) {
  DraftPolicy policy(1);
  for (int i = 0; i < 400; ++i) {
    const int rows = i % 2 == 0 ? 1 : 5;
    policy.learn_step(rows, (1 + 0.1 * rows) * (i % 8 == 1 ? 8 : 1));  // one of four of the larger ones
    policy.learn_cost(kKind, 1, 4, i % 10 == 0 ? 10 : 0.04);
  }
  verify(policy, 0, 4, 4);
  EXPECT_GT(choose(policy, 0, 1, 4).depth, 2);
}

TEST(DraftPolicy, ForgetsAnOldPriceWhileItTriesASingleGuessNowAndThen) {
  DraftPolicy policy(1);
  run_steps(policy, 0.02, 1);
  verify(policy, 0, 2, 2);
  choose(policy, 0, 1, 4);  // may be tried once
  ASSERT_EQ(choose(policy, 0, 1, 4).depth, 0) << "a row costs a step";
  for (int i = 0; i < 1600; ++i) policy.learn_step(i % 48 == 0 ? 2 : 1, i % 48 == 0 ? 1.12 : 1.02);
  EXPECT_GT(choose(policy, 0, 1, 4).depth, 2);
}

}  // namespace
}  // namespace serval::testing
