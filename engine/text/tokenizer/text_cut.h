// How a tokenizer's reference cuts a long text before it looks for words in it, so that ids equal its own.
#pragma once

#include <cstddef>
#include <string_view>

namespace serval {

// In characters; 0: no limit.
struct TextCut {
  size_t max_run = 0;   // of white space, or without any
  size_t max_text = 0;  // of all

  bool is_there() const { return max_run > 0 || max_text > 0; }
  // Takes the first part off `text`, which is not empty.
  std::string_view take(std::string_view& text) const;
};

}  // namespace serval
