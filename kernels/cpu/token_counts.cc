#include "kernels/cpu/token_counts.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace serval {
namespace {

int64_t words_for(int64_t vocab) {
  constexpr int64_t kTokensOfWord = TokenCounts::kBlock * 64;
  return (vocab + kTokensOfWord - 1) / kTokensOfWord;
}

}  // namespace

size_t TokenCounts::bytes(int num_slots, int64_t vocab) {
  return static_cast<size_t>(num_slots) * (vocab * sizeof(uint32_t) + words_for(vocab) * sizeof(uint64_t));
}

void TokenCounts::reserve(int num_slots, int64_t vocab) {
  if (num_slots <= num_slots_ && vocab <= vocab_) return;
  num_slots_ = std::max(num_slots, num_slots_);
  vocab_ = std::max(vocab, vocab_);
  num_words_ = words_for(vocab_);
  counts_.assign(num_slots_ * vocab_, 0);
  touched_.assign(num_slots_ * num_words_, 0);
}

void TokenCounts::add(const CountedTokens& added) {
  SERVAL_CHECK(added.slot >= 0 && added.slot < num_slots_, added.slot, num_slots_);
  uint32_t* const counts = counts_.data() + added.slot * vocab_;
  uint64_t* const touched = touched_.data() + added.slot * num_words_;
  if (added.restart) {
    for_blocks(added.slot, [&](int64_t b) {
      std::fill(counts + b * kBlock, counts + std::min(vocab_, (b + 1) * kBlock), 0u);
    });
    std::fill(touched, touched + num_words_, uint64_t{0});
  }
  for (int i = 0; i < added.num_tokens; ++i) {
    const int32_t token = added.tokens[i];
    SERVAL_DCHECK(token >= 0 && token < vocab_, token, vocab_);
    counts[token] = (counts[token] | kSeenToken) + (i >= added.num_prompt ? 1 : 0);
    touched[token / kBlock / 64] |= uint64_t{1} << (token / kBlock % 64);
  }
}

}  // namespace serval
