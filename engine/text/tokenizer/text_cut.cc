#include "engine/text/tokenizer/text_cut.h"

#include <unicode/uchar.h>

#include "kernels/base/utf8.h"

namespace serval {
namespace {

// As Python's str.isspace has it.
bool is_space(char32_t c) {
  return u_isUWhiteSpace(static_cast<UChar32>(c)) || (c >= 0x1c && c <= 0x1f);
}

}  // namespace

std::string_view TextCut::take(std::string_view& text) const {
  size_t end = 0;
  bool was_space = false;
  for (size_t count = 0, run = 0; end < text.size(); ++count) {
    size_t next = end;
    const bool is_now_space = is_space(static_cast<char32_t>(read_utf8(text, next)));
    run = count > 0 && is_now_space == was_space ? run + 1 : 1;
    was_space = is_now_space;
    if ((max_run > 0 && run > max_run) || (max_text > 0 && count == max_text)) break;
    end = next;
  }
  const std::string_view part = text.substr(0, end);
  text.remove_prefix(end);
  return part;
}

}  // namespace serval
