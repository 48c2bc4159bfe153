// Retrieval (REST: He et al. 2024, arXiv 2311.08252): what followed the last tokens in texts that are there from the start,
// as a tree of the continuations that are most frequent.
#pragma once

#include <vector>

#include "engine/runner/speculators/speculator.h"
#include "engine/runner/speculators/token_store.h"

namespace serval {

class DatastoreSpeculator : public Speculator {
 public:
  // vocab: ids that the target has.
  DatastoreSpeculator(TokenStore store, int vocab);

  DrafterKind kind() const override { return DrafterKind::kDatastore; }
  // Of the places where most of the last tokens stand, kLeastMatch to kMaxMatch of them: the continuations that most of
  // them share, as deep as tokens match. Where there are more than kMaxTried, so many of them in even distances are asked.
  void propose(std::span<DraftTask> tasks) override;

 private:
  static constexpr int kLeastMatch = 2, kMaxMatch = 16, kMaxTried = 64, kMaxOpen = 256;
  static_assert(kMaxMatch + kMaxDrafts <= TokenStore::kMaxOrdered);
  // What may be guessed next, behind a guess that was made.
  struct Open {
    TokenStore::Range places;
    TokenId token = 0;
    int parent = -1, depth = 1;
  };
  void guess(DraftTask& task);
  void open(TokenStore::Range places, int match, int parent, int depth, int width);

  const TokenStore store_;
  const int vocab_;
  std::vector<Open> open_;
};

}  // namespace serval
