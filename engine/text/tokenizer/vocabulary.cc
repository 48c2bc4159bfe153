#include "engine/text/tokenizer/vocabulary.h"

#include <algorithm>
#include <cstdio>
#include <stdexcept>

#include "engine/text/tokenizer/byte_alphabet.h"
#include "kernels/base/shown.h"

namespace serval {

Vocabulary::Vocabulary(std::vector<std::pair<std::string, TokenId>> entries) {
  const int64_t max_id = 2 * static_cast<int64_t>(entries.size()) + 65'536;
  TokenId largest = -1;
  for (const auto& [name, id] : entries) {
    if (id < 0 || id > max_id) {
      throw std::runtime_error("token " + in_quotes(name) + " has the id " + std::to_string(id) +
                               ", which is out of place among " + std::to_string(entries.size()) + " tokens");
    }
    largest = std::max(largest, id);
  }
  names_.resize(largest + 1);
  ids_.reserve(entries.size());
  std::vector<bool> taken(names_.size());
  for (auto& [name, id] : entries) {
    if (taken[id]) {
      throw std::runtime_error("tokens " + in_quotes(names_[id]) + " and " + in_quotes(name) +
                               " share the id " + std::to_string(id));
    }
    taken[id] = true;
    names_[id] = std::move(name);
    if (!ids_.emplace(names_[id], id).second) {
      throw std::runtime_error("token " + in_quotes(names_[id]) + " is there twice");
    }
  }
}

std::vector<TokenId> Vocabulary::byte_tokens() const {
  std::vector<TokenId> ids;
  for (int byte = 0; byte < 256; ++byte) {
    char byte_name[8];
    std::snprintf(byte_name, sizeof byte_name, "<0x%02X>", byte);
    ids.push_back(find(byte_name));
  }
  return ids;
}

bool Vocabulary::has_byte_alphabet() const {
  for (int byte = 0; byte < 0xF5; ++byte) {
    const bool in_utf8 = byte != 0xC0 && byte != 0xC1;  // nor are 0xF5 to 0xFF
    if (in_utf8 && find(byte_character(static_cast<unsigned char>(byte))) < 0) return false;
  }
  return true;
}

size_t Vocabulary::longest_name(bool in_characters) const {
  const auto starts_character = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; };
  size_t longest = 0;
  for (const std::string& name : names_) {
    longest =
        std::max(longest, in_characters
                              ? static_cast<size_t>(std::count_if(name.begin(), name.end(), starts_character))
                              : name.size());
  }
  return longest;
}

}  // namespace serval
