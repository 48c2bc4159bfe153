// Where the last tokens of a text stood in it before, for the text of each slot (prompt lookup: Saxena 2023). Places are
// found as LZ77's coders find them, by chains of those with an equal hash of two tokens (Deutsch 1996, RFC 1951 section 4),
// so that a guess costs the same however long the text is.
#pragma once

#include <span>
#include <vector>

#include "engine/batch.h"

namespace serval {

class NgramIndex {
 public:
  static size_t planned_bytes(int num_slots, int max_model_len);

  // Before all else: takes the memory that was planned.
  void start(int num_slots, int max_model_len);
  // Another sequence's text from here on.
  void clear(SlotId slot);
  // The slot's text so far; what was read of it before begins it.
  void read(SlotId slot, std::span<const TokenId> text);
  // Returns how many guesses of what follows `text` it wrote: from the place where most of its last tokens stand again, the
  // latest of those, as many tokens as match, at least kLeastMatch. A longer match is a better reason to go on. The latest
  // kMaxTried places are looked at. What was read begins `text`; in what is behind that no place is found.
  int guess(SlotId slot, std::span<const TokenId> text, std::span<TokenId> guesses) const;

 private:
  static constexpr int kLeastMatch = 2, kMaxTried = 64;
  // The places of one text: `latest` by the hash of the two tokens that end there, `before` the next older one of that
  // hash. -1: none.
  struct Places {
    int32_t* latest = nullptr;  // [num_buckets_]
    int32_t* before = nullptr;  // [max_model_len], by position
    int32_t size = 0;           // positions that were read
  };
  static int num_buckets(int max_model_len);
  int bucket(std::span<const TokenId> text, int last) const;

  int num_buckets_ = 0;
  std::vector<int32_t> memory_;
  std::vector<Places> slots_;
};

}  // namespace serval
