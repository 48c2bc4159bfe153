// The tokens of one word by BERT's rule (Devlin et al. 2019, after Wu et al. 2016): from the left, each time the longest
// token that the rest begins with, where those behind the first have names with a prefix. A word that does not come out
// is unknown as a whole. Knows nothing of how words are cut.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer/prefix_trie.h"
#include "engine/text/tokenizer/token_bound.h"
#include "engine/text/tokenizer/tokenizer.h"
#include "engine/text/tokenizer/vocabulary.h"

namespace serval {

class WordPieceModel {
 public:
  struct Scratch {};  // it needs none

  // A word of more than max_characters is unknown.
  WordPieceModel(Vocabulary vocabulary, TokenId unk_id, std::string_view continuing_prefix, int max_characters);

  // Appends the ids of `piece`, valid UTF-8. Looks at no more bytes than the longest token has for each token. Any thread.
  void encode(std::string_view piece, Scratch& scratch, std::vector<TokenId>& ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }
  TokenId unk_id() const { return unk_id_; }
  // As BpeModel has it: a word of any length may be one token.
  Loss loss(bool /*byte_pieces*/) const { return Loss::kAnything; }

 private:
  Vocabulary vocabulary_;
  TokenId unk_id_;
  size_t max_characters_;
  PrefixTrie first_, continuing_;
};

}  // namespace serval
