// Byte pair encoding of one piece of text (Sennrich, Haddow, Birch 2016, section 3.2): start from characters,
// apply the merge of the lowest rank, leftmost first, until none applies. Knows nothing of how pieces are
// cut.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/tokenizer/token_bound.h"
#include "engine/text/tokenizer/tokenizer.h"
#include "engine/text/tokenizer/vocabulary.h"

namespace serval {

struct BpeOptions {
  TokenId unk_id = -1;            // for characters outside the vocabulary; -1: they are dropped
  bool fuse_unk = false;          // a run of them is one token
  bool byte_fallback = false;     // they become tokens <0x00>..<0xFF>, if all of these are there
  bool ignore_merges = false;     // a piece that is itself a token is that token
  std::string continuing_prefix;  // before each character of a piece but the first, in names of tokens
  std::string end_suffix;         // after the last one
};

class BpeModel {
 public:
  // Working memory of encode, reused from piece to piece; one thread at a time.
  struct Scratch {
    struct Symbol {
      TokenId id;  // -1: merged into the one before
      int32_t previous, next;
    };
    std::vector<Symbol> symbols;
    std::vector<uint64_t> queue;  // a heap of rank << 32 | position of the left symbol
    std::string name;
    // Candidates ever queued: the measure of the work done, at most 3 per character.
    uint64_t num_steps = 0;
  };

  // merges: pairs of ids in rank order; of equal pairs the last counts. Throws std::runtime_error when a
  // merge's result is not in the vocabulary.
  BpeModel(Vocabulary vocabulary, const std::vector<std::pair<TokenId, TokenId>>& merges,
           const BpeOptions& options);
  // Of tokens ranked by their ids, in the byte alphabet: two neighbours merge when what they make is a token,
  // the lowest first (tiktoken). A piece that is itself a token is that token.
  static BpeModel from_ranks(Vocabulary vocabulary);

  // Appends the ids of `piece`, valid UTF-8. O(n log n). Any thread.
  void encode(std::string_view piece, Scratch& scratch, std::vector<TokenId>& ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }
  TokenId unk_id() const { return options_.unk_id; }

  // What encode may leave out, or join without bound: nothing when every character of a piece is sure to be
  // in tokens of its own. `byte_pieces`: pieces are in the byte alphabet.
  Loss loss(bool byte_pieces) const;

 private:
  struct Merge {
    uint64_t pair = kNoPair;  // left << 32 | right
    uint32_t rank = 0;
    TokenId result = -1;
  };
  static constexpr uint64_t kNoPair = ~uint64_t{0};
  static constexpr char32_t kNumDirect = 0x250;  // the byte alphabet and European letters

  static uint64_t pair_key(TokenId left, TokenId right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t slot_of(uint64_t pair) const {
    return static_cast<size_t>(pair * 0x9E3779B97F4A7C15u >> hash_shift_);
  }
  BpeModel(Vocabulary vocabulary, const BpeOptions& options);
  void set_merges(const std::vector<Merge>& merges);
  TokenId find_character(std::string_view character, bool is_first, bool is_last, std::string& name) const;
  const Merge* find_merge(TokenId left, TokenId right) const;
  void start_symbols(std::string_view piece, Scratch& scratch) const;
  void queue_pair(Scratch& scratch, int32_t left) const;

  Vocabulary vocabulary_;
  BpeOptions options_;
  std::vector<TokenId> direct_;       // id of a character below kNumDirect, -1 for none
  std::vector<TokenId> byte_tokens_;  // ids of <0x00>..<0xFF>, -1 where missing; empty without byte_fallback
  std::vector<Merge> merges_;         // open addressing, linear probing, at most half full
  int hash_shift_ = 63;
};

}  // namespace serval
