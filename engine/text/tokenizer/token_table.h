// The bytes behind every token id, and which ids are special, in two flat arrays. Built once, then read by
// any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer/tokenizer.h"

namespace serval {

class TokenTable {
 public:
  // Ids are added in order, holes as "".
  void add(std::string_view bytes, bool special) {
    bytes_ += bytes;
    ends_.push_back(bytes_.size());
    special_.push_back(special);
  }

  int size() const { return static_cast<int>(ends_.size()); }
  std::string_view bytes(TokenId id) const {
    if (id < 0 || id >= size()) return {};
    const size_t begin = id == 0 ? 0 : ends_[id - 1];
    return std::string_view(bytes_).substr(begin, ends_[id] - begin);
  }
  bool is_special(TokenId id) const { return id >= 0 && id < size() && special_[id]; }

 private:
  std::string bytes_;
  std::vector<size_t> ends_;
  std::vector<bool> special_;
};

}  // namespace serval
