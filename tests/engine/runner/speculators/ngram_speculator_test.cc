#include "engine/runner/speculators/ngram_speculator.h"

#include <gtest/gtest.h>

#include "tests/support/allocation_counter.h"

namespace serval::testing {
namespace {

std::vector<TokenId> proposed(const std::vector<TokenId>& known, int most) {
  std::vector<Draft> drafts = {{7, -1}};  // another sequence's
  NgramSpeculator().propose(known, most, drafts);
  std::vector<TokenId> tokens;
  for (size_t i = 1; i < drafts.size(); ++i) {
    EXPECT_EQ(drafts[i].parent, static_cast<int32_t>(i) - 2) << "a chain";
    tokens.push_back(drafts[i].token);
  }
  return tokens;
}

using Tokens = std::vector<TokenId>;

TEST(NgramSpeculator, ProposesWhatFollowedTheLongestMatchAsManyTokensAsMatch) {
  EXPECT_EQ(proposed({1, 2, 3, 4, 5, 9, 8, 2, 3, 7, 1, 2, 3}, 8), (Tokens{4, 5, 9})) << "three match, not two";
  EXPECT_EQ(proposed({1, 2, 3, 4, 5, 9, 8, 2, 3, 7, 1, 2, 3}, 2), (Tokens{7, 1})) << "no more than two are wanted";
  EXPECT_EQ(proposed({5, 1, 2, 3, 6, 1, 2, 4, 1, 2}, 8), (Tokens{4, 1})) << "the latest of equals";
}

TEST(NgramSpeculator, ProposesNothingWithoutTwoTokensThatStoodTogetherBefore) {
  EXPECT_EQ(proposed({1, 2, 3, 1, 4, 3}, 8), Tokens{});
  EXPECT_EQ(proposed({1}, 8), Tokens{});
  EXPECT_EQ(proposed({1, 1}, 8), Tokens{});
  EXPECT_EQ(proposed({}, 8), Tokens{});
}

TEST(NgramSpeculator, GoesOnInCirclesWhereTheMatchReachesTheEnd) {
  EXPECT_EQ(proposed({3, 5, 5, 5, 5, 5}, 6), (Tokens{5, 5, 5, 5}));
  EXPECT_EQ(proposed({9, 1, 2, 1, 2, 1, 2}, 6), (Tokens{1, 2, 1, 2}));
}

TEST(NgramSpeculator, AllocatesNothing) {
  NgramSpeculator speculator;
  const std::vector<TokenId> known(1000, 4);
  std::vector<Draft> drafts;
  drafts.reserve(kMaxDrafts);
  const AllocationCounter counter;
  speculator.propose(known, kMaxDrafts, drafts);
  EXPECT_EQ(counter.count_on_this_thread(), 0);
  EXPECT_EQ(drafts.size(), static_cast<size_t>(kMaxDrafts));
}

}  // namespace
}  // namespace serval::testing
