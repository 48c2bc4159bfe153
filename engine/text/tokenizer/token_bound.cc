#include "engine/text/tokenizer/token_bound.h"

#include <unicode/uchar.h>

#include "kernels/base/utf8.h"

namespace serval {

size_t bytes_without_white_space(std::string_view text) {
  size_t bytes = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    if (!u_isUWhiteSpace(static_cast<UChar32>(read_utf8(text, pos)))) bytes += pos - begin;
  }
  return bytes;
}

size_t TokenBound::least_tokens(std::string_view text) const {
  if (loss == Loss::kAnything) return 0;
  const size_t bytes = loss == Loss::kNothing ? text.size() : bytes_without_white_space(text);
  return (bytes + max_bytes - 1) / max_bytes;
}

}  // namespace serval
