// Tokens that are found in the text before anything is normalised or cut: "<|im_end|>" and the like. Knows
// nothing of how the rest is tokenised.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

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

  bool empty() const { return tokens_.empty(); }
  bool strips() const;  // whether some token takes white space beside it

 private:
  struct Node {  // of a byte trie; children are a linked list
    int32_t child = -1;
    int32_t sibling = -1;
    int32_t token = -1;  // index into tokens_
    uint8_t byte = 0;
  };

  int32_t find_child(int32_t node, uint8_t byte) const;
  const AddedToken* longest_at(std::string_view text, size_t pos) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  int32_t roots_[256];  // node of a first byte, -1 for none
};

}  // namespace serval
