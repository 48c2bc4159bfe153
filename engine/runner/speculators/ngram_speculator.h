// Prompt lookup (Saxena 2023): what followed the last tokens when they stood in the prompt or output before. Places
// are found as LZ77's coders find them, by chains of those with an equal hash of two tokens (Deutsch 1996, RFC 1951
// section 4), so that a guess costs the same however long the text is.
#pragma once

#include <vector>

#include "engine/runner/speculators/speculator.h"

namespace serval {

class NgramSpeculator : public Speculator {
 public:
  static size_t planned_bytes(int num_slots, int max_model_len);

  DrafterKind kind() const override { return DrafterKind::kNgram; }
  void start(const DraftHost& host) override;
  void start(int num_slots, int max_model_len);
  void admit(const Admission& newcomer) override;
  // A chain: from the place where most of the last tokens stand again, the latest of those, as many tokens as
  // match, at least kLeastMatch. A longer match is a better reason to go on. The latest kMaxTried places are looked at.
  void propose(std::span<DraftTask> tasks) override;

 private:
  static constexpr int kLeastMatch = 2, kMaxTried = 64;
  // The places of one sequence's text: `latest` by the hash of the two tokens that end there, `before` the next older
  // one of that hash. -1: none.
  struct Index {
    int32_t* latest = nullptr;  // [num_buckets_]
    int32_t* before = nullptr;  // [max_model_len], by position
    int32_t size = 0;           // positions that are in it
  };
  static int num_buckets(int max_model_len);
  void read(Index& index, std::span<const TokenId> known) const;
  void guess(const Index& index, DraftTask& task) const;

  int num_buckets_ = 0;
  std::vector<int32_t> memory_;
  std::vector<Index> slots_;
};

}  // namespace serval
