#include "engine/runner/speculators/lookahead_speculator.h"

#include <gtest/gtest.h>

#include <set>

namespace serval::testing {
namespace {

constexpr int kVocab = 97;

// A model whose next token is a function of the last one.
TokenId next_of(TokenId token) {
  return (token * 31 + 7) % kVocab;
}

// What a step draws behind the last token and behind each guess, and how many guesses come true.
struct Verified {
  std::vector<Draft> tried;
  std::vector<SampleResult> draws;
  std::vector<TokenId> drawn;
};
Verified verify(const DraftTask& task, size_t room) {
  Verified v;
  v.tried.assign(task.drafts.begin(), task.drafts.begin() + std::min<size_t>(task.num_drafts, room));
  v.draws.push_back({.token = next_of(task.known.back())});
  for (const Draft& draft : v.tried) v.draws.push_back({.token = next_of(draft.token)});
  int last = -1;
  v.drawn.push_back(v.draws[0].token);
  for (int i = 0; i < std::ssize(v.tried); ++i) {
    if (v.tried[i].parent != last || v.tried[i].token != v.drawn.back()) continue;
    last = i;
    v.drawn.push_back(v.draws[1 + i].token);
  }
  return v;
}

class Lookahead : public ::testing::Test {
 protected:
  Lookahead() {
    speculator_.start(2);
    speculator_.admit({.slot = 1});
  }
  // Tokens of some steps with so many guesses at most.
  size_t run(int steps, int most, size_t room = kMaxDrafts) {
    size_t tokens = 0;
    for (int i = 0; i < steps; ++i) {
      task_.known = known_;
      task_.tried = last_.tried;
      task_.draws = last_.draws;
      task_.most = task_.depth = most;
      task_.num_drafts = 0;
      speculator_.propose({&task_, 1});
      EXPECT_LE(task_.num_drafts, most);
      std::set<std::pair<int, TokenId>> of_parent;
      for (int d = 0; d < task_.num_drafts; ++d) EXPECT_LT(task_.drafts[d].parent, d);
      last_ = verify(task_, room);
      known_.insert(known_.end(), last_.drawn.begin(), last_.drawn.end());
      tokens += last_.drawn.size();
    }
    return tokens;
  }

  LookaheadSpeculator speculator_;
  std::vector<TokenId> known_ = {5, 17, 30, 41, 8, 77, 12, 64};
  DraftTask task_{.slot = 1};
  Verified last_;
};

// Nothing has stood in the text before, and yet.
TEST_F(Lookahead, GuessesNgramsThatTheModelDrewFurtherOn) {
  run(4, 30);
  EXPECT_GT(run(100, 30), 150u);
  for (size_t i = 9; i < known_.size(); ++i) ASSERT_EQ(known_[i], next_of(known_[i - 1])) << "as without";
}

TEST_F(Lookahead, NeedsRoomForAWindow) {
  EXPECT_EQ(run(20, 5), 20u);
  EXPECT_EQ(task_.num_drafts, 0);
  EXPECT_GT(run(200, 6), 250u) << "one column, one n-gram";
}

// Of a step that had no room for all, what was drawn behind the window's beginning says nothing of its end.
TEST_F(Lookahead, LearnsNothingFromHalfAWindow) {
  EXPECT_EQ(run(40, 30, 9), 40u);
}

TEST_F(Lookahead, ForgetsWhoWasThereBefore) {
  run(50, 30);
  speculator_.admit({.slot = 1});
  last_ = {};
  run(1, 30);
  EXPECT_EQ(task_.num_drafts, 15) << "the window alone";
}

}  // namespace
}  // namespace serval::testing
