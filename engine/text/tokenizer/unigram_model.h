// The unigram language model of one piece of text (Kudo 2018, "Subword Regularization", section 3.2): of all
// ways to cut it into tokens the likeliest, by Viterbi's algorithm. Knows nothing of how pieces are cut.
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

class UnigramModel {
 public:
  static constexpr size_t kMaxTokenBytes = 1024;

  // Working memory of encode, reused from piece to piece; one thread at a time.
  struct Scratch {
    struct Cut {  // the best way to what lies before a byte
      double score = 0;
      TokenId id = -1;     // of its last token
      int64_t begin = -1;  // of that token; -1: no way leads here
    };
    std::vector<Cut> cuts;
    std::vector<std::string_view> tokens;
    // Bytes looked at: the measure of the work done, at most those of the longest token for each character.
    uint64_t num_steps = 0;
  };

  // scores[id]: log-probabilities. unk_id: of runs of characters outside the vocabulary, -1 when there is no
  // such token, and then they are dropped; with byte_fallback they become <0x00>..<0xFF> where all of these
  // that a run needs are there. Throws std::runtime_error for a token of more than kMaxTokenBytes.
  UnigramModel(Vocabulary vocabulary, std::vector<double> scores, TokenId unk_id, bool byte_fallback);

  // Appends the ids of `piece`, valid UTF-8. Any thread.
  void encode(std::string_view piece, Scratch& scratch, std::vector<TokenId>& ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }
  TokenId unk_id() const { return unk_id_; }
  // As BpeModel has it.
  Loss loss(bool byte_pieces) const;

 private:
  void append(std::string_view token, std::vector<TokenId>& ids) const;

  Vocabulary vocabulary_;
  std::vector<double> scores_;
  TokenId unk_id_;
  double unk_score_ = 0;
  std::vector<TokenId> byte_tokens_;  // empty without byte_fallback
  PrefixTrie trie_;
};

}  // namespace serval
