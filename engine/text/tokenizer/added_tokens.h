// Tokens that are found in the text before anything is normalised or cut: "<|im_end|>" and the like. Knows
// nothing of how the rest is tokenised.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer/prefix_trie.h"
#include "engine/text/tokenizer/tokenizer.h"

namespace serval {

struct AddedToken {
  std::string content;
  TokenId id = -1;
  bool special = false;
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // and after it
  bool single_word = false;  // only where no word character touches it
  bool normalized = true;    // looked for in normalised text, by its normalised content
};

struct TextSegment {
  std::string_view text;
  TokenId id;  // -1: plain text
};

class AddedTokenMatcher {
 public:
  static constexpr size_t kMaxContentBytes = 1024;

  // Throws std::runtime_error when a content is empty or above kMaxContentBytes: a search looks at most that
  // far from every byte, which is what makes it linear. Of equal contents the first counts.
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens = {});

  // Cuts `text` at the longest token at the leftmost place, again and again. Without match_special a special
  // token's name is plain text (but still covers shorter tokens inside it). `segments` is replaced and views
  // `text`. Any thread.
  void split(std::string_view text, bool match_special, std::vector<TextSegment>& segments) const;

  std::vector<std::string> special_names() const;
  bool strips() const;  // whether some token takes white space beside it

 private:
  const AddedToken* longest_at(std::string_view text, size_t pos) const;

  std::vector<AddedToken> tokens_;
  PrefixTrie trie_;  // indices into tokens_
};

}  // namespace serval
