// Lookahead decoding (Fu et al. 2024, arXiv 2402.02057): the target guesses for itself, without other weights. A window
// of tokens that may stand further on is computed in the same step as the text; what the target draws behind them makes
// n-grams, which are kept, and those that begin with the text's last token are verified in the next step. Both branches are
// one tree of guesses: a token of the window is a guess that hardly comes true and whose draw is of use all the same.
#pragma once

#include <vector>

#include "engine/runner/speculators/speculator.h"

namespace serval {

class LookaheadSpeculator : public Speculator {
 public:
  static size_t planned_bytes(int num_slots);

  DrafterKind kind() const override { return DrafterKind::kLookahead; }
  void start(const DraftHost& host) override;
  void start(int num_slots);
  void admit(const Admission& newcomer) override;
  // A tree: the n-grams that are known to follow the last token, the newest first, and then the window, as wide as what
  // is wanted has room for. Half of the guesses are for either.
  void propose(std::span<DraftTask> tasks) override;

 private:
  static constexpr int kLength = 4;  // of an n-gram, its first token included (the paper's N)
  static constexpr int kLevels = kLength - 1;
  static constexpr int kMaxWidth = kMaxDrafts / kLevels / 2;  // of the window (W)
  static constexpr int kBuckets = 512, kOfBucket = 4;         // n-grams of a first token's bucket
  struct Ngram {
    TokenId tokens[kLength] = {-1};  // the first is -1: there is none
  };
  struct Slot {
    int width = 0;  // of the window; 0: there is none yet
    TokenId window[kLevels][kMaxWidth] = {};  // window[l][j] follows window[l - 1][j]; the first ones follow each other
    int place[kLevels][kMaxWidth] = {};       // among the guesses that were given last
    bool was_given = false;
    std::array<Ngram, kBuckets * kOfBucket> pool;
    std::array<uint8_t, kBuckets> next = {};  // to be replaced
  };
  static void learn(Slot& slot, const DraftTask& task);
  static void remember(Slot& slot, const Ngram& ngram);
  static void begin_window(Slot& slot, std::span<const TokenId> known, int width);
  void add_known(const Slot& slot, int most, DraftTask& task) const;
  void add_window(Slot& slot, DraftTask& task) const;

  std::vector<Slot> slots_;
};

}  // namespace serval
