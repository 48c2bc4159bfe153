// What the tables of the runner hand to sampling as a sequence grows.
#include "engine/runner/slot_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace serval {
namespace {

constexpr int kModelLen = 4000;
constexpr SeqId kSeq = 7;

BlockGeometry geometry() {
  BlockGeometry g;
  g.groups[0].num_blocks = 1000;
  return g;
}

class SlotTableOf : public testing::Test {
 protected:
  void admit(const std::vector<TokenId>& tokens, int num_prompt) {
    Batch batch;
    if (admitted_) batch.freed = {0};
    admitted_ = true;
    batch.admitted.push_back({.seq = kSeq, .slot = 0, .tokens = tokens, .num_prompt = num_prompt});
    batch.num_admitted = 1;
    slots_.update(batch);
  }
  // A step over `tokens`, the last num_drafts of them guesses. Returns what is counted at its draw.
  CountedTokens step(int first_pos, const std::vector<TokenId>& tokens, int num_drafts = 0) {
    Batch batch;
    batch.tokens = tokens;
    const auto num_tokens = static_cast<int32_t>(tokens.size());
    batch.seqs.push_back({.seq = kSeq,
                          .first_pos = first_pos,
                          .num_tokens = num_tokens,
                          .num_drafts = num_drafts,
                          .sample = true});
    slots_.update(batch);
    return slots_.count_known(0, first_pos + num_tokens - num_drafts);
  }
  static std::vector<TokenId> listed(const CountedTokens& counted) {
    return {counted.tokens, counted.tokens + counted.num_tokens};
  }

  SlotTable slots_{1, kModelLen, geometry()};
  bool admitted_ = false;
};

TEST_F(SlotTableOf, ASequenceHandsEachTokenToPenaltiesOnceHoweverLongItsHistoryIs) {
  std::vector<TokenId> prompt(3000);
  for (int i = 0; i < 3000; ++i) prompt[i] = i % 90;
  admit(prompt, 3000);
  CountedTokens counted = step(0, prompt);
  EXPECT_TRUE(counted.restart);
  EXPECT_EQ(listed(counted), prompt);
  EXPECT_EQ(counted.num_prompt, 3000);
  for (int pos = 3000; pos < 3500; ++pos) {
    slots_.learn(kSeq, 0, pos, 5);
    counted = step(pos, {5});
    ASSERT_FALSE(counted.restart);
    ASSERT_EQ(listed(counted), std::vector<TokenId>{5});
    ASSERT_EQ(counted.num_prompt, 0);
  }
}

TEST_F(SlotTableOf, DraftsAreNotCountedBeforeTheyAreTokens) {
  admit({1, 2, 3}, 3);
  EXPECT_EQ(listed(step(0, {1, 2, 3, 40, 41}, 2)), (std::vector<TokenId>{1, 2, 3}));
  EXPECT_EQ(listed(step(3, {40, 50, 51}, 2)), std::vector<TokenId>{40}) << "one draft was right";
}

TEST_F(SlotTableOf, ATokenThatOnlyTheDeviceKnowsIsCountedWhenItIsLearned) {
  admit({1, 2}, 2);
  step(0, {1, 2});
  EXPECT_EQ(step(2, {kTokenOnDevice}).num_tokens, 0);
  slots_.learn(kSeq, 0, 2, 30);
  EXPECT_EQ(listed(step(3, {kTokenOnDevice})), std::vector<TokenId>{30});
  slots_.learn(kSeq, 0, 3, 31);
  EXPECT_EQ(listed(step(4, {32})), (std::vector<TokenId>{31, 32}));
}

TEST_F(SlotTableOf, ASequenceThatComesBackIsCountedAnew) {
  admit({1, 2}, 2);
  step(0, {1, 2});
  step(2, {9});
  admit({1, 2, 9, 8}, 2);
  const CountedTokens counted = step(0, {1, 2, 9, 8});
  EXPECT_TRUE(counted.restart);
  EXPECT_EQ(listed(counted), (std::vector<TokenId>{1, 2, 9, 8}));
  EXPECT_EQ(counted.num_prompt, 2);
}

}  // namespace
}  // namespace serval
