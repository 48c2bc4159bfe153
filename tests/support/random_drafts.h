// Guesses for a FakeRunner as a drafter might make them: mostly what comes true, spoiled in places, in chains or
// in trees.
#pragma once

#include <random>
#include <vector>

#include "tests/support/fake_runner.h"

namespace serval {

struct RandomDrafts {
  const FakeRunner& runner;
  int most;  // of one sequence
  bool branches = false;
  std::mt19937_64 random{1};

  void operator()(const std::vector<TokenId>& known, uint64_t seed, std::vector<Draft>& guesses) {
    const size_t count = random() % (most + 1);
    std::vector<TokenId> truth = known;  // and what follows
    std::vector<int> depth;              // 1 + how far a guess is from the last token; 0: it does not come true
    for (size_t i = 0; i < count; ++i) {
      const auto last = static_cast<int32_t>(i) - 1;
      const int32_t parent =
          branches && random() % 3 == 0 ? static_cast<int32_t>(random() % (i + 1)) - 1 : last;
      const int above = parent < 0 ? 0 : depth[parent];
      const bool is_true = (parent < 0 || above > 0) && random() % 5 != 0;
      while (truth.size() < known.size() + above + 1) truth.push_back(runner.next_token(truth, seed));
      const TokenId token = is_true ? truth[known.size() + above] : static_cast<TokenId>(random() % 50);
      depth.push_back(token == truth[known.size() + above] && (parent < 0 || above > 0) ? above + 1 : 0);
      guesses.push_back({token, parent});
    }
  }
};

}  // namespace serval
