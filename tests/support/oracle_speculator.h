// A drafter that knows what some sequences will draw and errs as often as it is told to: chains, or trees whose
// branches cross.
#pragma once

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "engine/runner/speculators/speculator.h"

namespace serval::testing {

class OracleSpeculator : public Speculator {
 public:
  // Prompts with the output that follows them.
  OracleSpeculator(std::vector<std::vector<TokenId>> sequences, bool branches, uint64_t seed = 1)
      : sequences_(std::move(sequences)), branches_(branches), random_(seed) {}

  DrafterKind kind() const override { return DrafterKind::kNgram; }
  void propose(std::span<DraftTask> tasks) override {
    for (DraftTask& task : tasks) {
      if (task.wants_more()) guess(task);
    }
  }

 private:
  void guess(DraftTask& task) {
    const std::span<const TokenId> known = task.known;
    for (const std::vector<TokenId>& truth : sequences_) {
      if (truth.size() <= known.size() || !std::equal(known.begin(), known.end(), truth.begin())) continue;
      return guess({truth.begin() + static_cast<int64_t>(known.size()), truth.end()}, task);
    }
  }
  void guess(std::span<const TokenId> coming, DraftTask& task) {
    const size_t count = random_() % (task.most + 1);
    int depth[kMaxDrafts];  // of a guess that comes true; 0: it does not
    for (size_t i = 0; i < count; ++i) {
      const bool jumps = branches_ && random_() % 3 == 0;
      const int32_t parent = static_cast<int32_t>(jumps ? random_() % (i + 1) : i) - 1;
      const size_t above = parent < 0 ? 0 : depth[parent];
      const bool is_on_the_way = (parent < 0 || above > 0) && above < coming.size();
      const bool is_true = is_on_the_way && random_() % 5 != 0;
      const auto wrong = static_cast<TokenId>(random_() % 500);
      const TokenId token = is_true ? coming[above] : wrong;
      depth[i] = is_on_the_way && token == coming[above] ? static_cast<int>(above) + 1 : 0;
      task.add(token, parent, kind());
    }
  }

  const std::vector<std::vector<TokenId>> sequences_;
  const bool branches_;
  std::mt19937_64 random_;
};

}  // namespace serval::testing
