// How few tokens a text can have, known from its bytes alone: what lets a text that cannot fit anywhere be
// refused before it is tokenised. Each step between a text and its tokens says what it may lose; the bound
// holds for the worst of them, and a tokenizer that may lose anything has none.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace serval {

// What a step may leave out, from nothing to anything.
enum class Loss : uint8_t { kNothing, kWhiteSpace, kAnything };

struct TokenBound {
  Loss loss = Loss::kAnything;
  size_t max_bytes = 1;  // of the text that one token stands for, white space apart when that may be lost

  // encode(text, ...) has at least so many ids. Linear, and far faster than encode.
  size_t least_tokens(std::string_view text) const;
};

// Bytes of `text`, valid UTF-8, that do not belong to characters of the Unicode property White_Space.
size_t bytes_without_white_space(std::string_view text);

}  // namespace serval
