// The tokens of one piece of text by longest match: from the left, each time the longest token that the rest begins with
// (RWKV's World vocabulary). Knows nothing of how pieces are cut.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer/prefix_trie.h"
#include "engine/text/tokenizer/token_bound.h"
#include "engine/text/tokenizer/tokenizer.h"
#include "engine/text/tokenizer/vocabulary.h"

namespace serval {

class LongestMatchModel {
 public:
  static constexpr size_t kMaxTokenBytes = 1024;
  struct Scratch {};  // it needs none

  // In the byte alphabet, with a token for each byte. Throws std::runtime_error where one is missing, or a token has more
  // than kMaxTokenBytes.
  explicit LongestMatchModel(Vocabulary vocabulary);

  // Appends the ids of `piece`, in the byte alphabet. Looks at no more bytes than the longest token has for each token. Any
  // thread.
  void encode(std::string_view piece, Scratch& scratch, std::vector<TokenId>& ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }
  TokenId unk_id() const { return -1; }
  // As BpeModel has it.
  Loss loss(bool byte_pieces) const { return byte_pieces ? Loss::kNothing : Loss::kAnything; }

 private:
  Vocabulary vocabulary_;
  PrefixTrie trie_;
};

}  // namespace serval
