// Token names and their ids, both ways. Built once, then read by any thread. Knows nothing of what a name
// means.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/text/tokenizer/tokenizer.h"

namespace serval {

class Vocabulary {
 public:
  Vocabulary() = default;
  // Throws std::runtime_error when two names share an id, a name comes twice, or ids are negative or so
  // sparse (beyond twice the number of entries plus 65,536) that the tables behind them would be far larger
  // than the file they came from.
  explicit Vocabulary(std::vector<std::pair<std::string, TokenId>> entries);

  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;

  TokenId find(std::string_view name) const {
    const auto it = ids_.find(name);
    return it == ids_.end() ? -1 : it->second;
  }
  // "" for ids outside the vocabulary and for holes in it.
  std::string_view name(TokenId id) const {
    return id < 0 || static_cast<size_t>(id) >= names_.size() ? std::string_view() : names_[id];
  }
  int size() const { return static_cast<int>(names_.size()); }  // 1 + the largest id

  // Ids of the byte tokens <0x00>..<0xFF>, -1 where missing.
  std::vector<TokenId> byte_tokens() const;
  // Whether each byte of valid UTF-8 has a token, in the byte alphabet (byte_alphabet.h).
  bool has_byte_alphabet() const;
  // Most bytes of a name; `in_characters`: most characters.
  size_t longest_name(bool in_characters) const;

 private:
  std::vector<std::string> names_;                     // [id]
  std::unordered_map<std::string_view, TokenId> ids_;  // keys lie in names_
};

}  // namespace serval
