#include "engine/runner/speculators/ngram_speculator.h"

#include <gtest/gtest.h>

#include <random>

#include "engine/runner/speculators/prediction_speculator.h"
#include "tests/support/allocation_counter.h"

namespace serval::testing {
namespace {

std::vector<TokenId> guesses_of(const DraftTask& task) {
  std::vector<TokenId> tokens;
  for (int i = 0; i < task.num_drafts; ++i) {
    EXPECT_EQ(task.drafts[i].parent, i - 1) << "a chain";
    tokens.push_back(task.drafts[i].token);
  }
  return tokens;
}

// Told in steps of every size.
std::vector<TokenId> proposed(const std::vector<TokenId>& known, int most) {
  std::vector<TokenId> last;
  for (const size_t step : {1, 3, 100}) {
    NgramSpeculator speculator;
    speculator.start(2, 64);
    speculator.admit({.seq = 7, .slot = 1});
    std::array<DraftTask, 1> tasks;
    tasks[0] = {.seq = 7, .slot = 1, .depth = most};
    for (size_t end = std::min(step, known.size());; end = std::min(end + step, known.size())) {
      tasks[0].known = std::span(known).first(end);
      tasks[0].most = end == known.size() ? most : 0;
      speculator.propose(tasks);
      if (end == known.size()) break;
    }
    if (step > 1) {
      EXPECT_EQ(guesses_of(tasks[0]), last) << step;
    }
    last = guesses_of(tasks[0]);
  }
  return last;
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

TEST(NgramSpeculator, ForgetsWhoWasInTheSlotBefore) {
  NgramSpeculator speculator;
  speculator.start(1, 64);
  const Tokens first = {1, 2, 3, 1, 2}, second = {9, 1, 2};
  for (const Tokens& known : {first, second}) {
    speculator.admit({});
    std::array<DraftTask, 1> tasks;
    tasks[0] = {.known = known, .most = 4, .depth = 4};
    speculator.propose(tasks);
    EXPECT_EQ(guesses_of(tasks[0]), known == first ? (Tokens{3, 1}) : Tokens{});
  }
}

// The lookup by hand, over texts that repeat themselves.
TEST(NgramSpeculator, FindsWhatALookAtEveryPlaceFinds) {
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    Tokens known(2 + random() % 40);
    for (TokenId& token : known) token = static_cast<TokenId>(random() % 3);
    const int last = static_cast<int>(known.size()) - 1, most = 1 + static_cast<int>(random() % 6);
    int match = 1, match_end = 0;
    for (int end = last; end >= 2 && match < std::max(most, 2); --end) {
      int length = 0;
      while (length < std::min(std::max(most, 2), end) && known[end - 1 - length] == known[last - length]) ++length;
      if (length > match) match = length, match_end = end;
    }
    Tokens expected;
    for (int i = 0; match >= 2 && i < std::min(match, most); ++i)
      expected.push_back(match_end + i <= last ? known[match_end + i] : expected[match_end + i - last - 1]);
    EXPECT_EQ(proposed(known, most), expected) << round;
  }
}

TEST(NgramSpeculator, AllocatesNothing) {
  NgramSpeculator speculator;
  speculator.start(1, 1000);
  const std::vector<TokenId> known(1000, 4);
  std::array<DraftTask, 1> tasks;
  tasks[0] = {.known = known, .most = kMaxDrafts, .depth = kMaxDrafts};
  const AllocationCounter counter;
  speculator.propose(tasks);
  EXPECT_EQ(counter.count_on_this_thread(), 0);
  EXPECT_EQ(tasks[0].num_drafts, kMaxDrafts);
}

TEST(PredictionSpeculator, GoesOnWhereTheOutputStandsInIt) {
  PredictionSpeculator speculator;
  speculator.start(2, 64);
  Admission newcomer{.slot = 1};
  newcomer.prediction = {1, 2, 3, 4, 5, 6, 3, 4, 8};
  speculator.admit(newcomer);
  Tokens known = {90, 91};
  const auto proposed = [&](int most) {
    std::array<DraftTask, 1> tasks;
    tasks[0] = {.slot = 1, .known = known, .num_prompt = 2, .most = most, .depth = most};
    speculator.propose(tasks);
    return guesses_of(tasks[0]);
  };
  EXPECT_EQ(proposed(3), (Tokens{1, 2, 3})) << "from the beginning";
  known.insert(known.end(), {1, 2});
  EXPECT_EQ(proposed(3), (Tokens{3, 4, 5}));
  known.push_back(7);
  EXPECT_EQ(proposed(3), Tokens{}) << "the output is another";
  known.push_back(3);
  EXPECT_EQ(proposed(3), Tokens{}) << "one token is nothing to go by";
  known.push_back(4);
  EXPECT_EQ(proposed(3), (Tokens{5, 6, 3})) << "the next place behind where it departed";
  known.insert(known.end(), {9, 3, 4});
  EXPECT_EQ(proposed(3), (Tokens{8})) << "which is further on by now";
}

}  // namespace
}  // namespace serval::testing
