// How often each token occurs in the prompt and output of the sequence in a slot, for the penalties of
// sampling. Kept from step to step: a token that joins costs one addition, and a draw walks the blocks of the
// vocabulary that hold a counted token, so neither grows with the length of the history beyond the
// vocabulary.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/sample.h"

namespace serval {

class TokenCounts {
 public:
  static constexpr int kBlock = 64;  // tokens

  static size_t bytes(int num_slots, int64_t vocab);

  // Makes room and forgets everything counted, where there is not room yet.
  void reserve(int num_slots, int64_t vocab);
  int num_slots() const { return num_slots_; }

  void add(const CountedTokens& tokens);

  // [vocab]: kSeenToken for a token of prompt or output, plus its occurrences in the output; 0 for others.
  const uint32_t* of(int slot) const { return counts_.data() + slot * vocab_; }
  // Calls visit(b) for every block b of the vocabulary that holds a counted token, ascending.
  template <class Visit>
  void for_blocks(int slot, const Visit& visit) const {
    const uint64_t* const words = touched_.data() + slot * num_words_;
    for (int64_t w = 0; w < num_words_; ++w)
      for (uint64_t bits = words[w]; bits != 0; bits &= bits - 1) visit(w * 64 + std::countr_zero(bits));
  }

 private:
  int num_slots_ = 0;
  int64_t vocab_ = 0, num_words_ = 0;  // rows of the two arrays
  std::vector<uint32_t> counts_;       // [num_slots, vocab]
  std::vector<uint64_t> touched_;      // [num_slots, num_words]: a bit for each block
};

}  // namespace serval
