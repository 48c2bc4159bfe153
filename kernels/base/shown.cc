#include "kernels/base/shown.h"

#include <cstdio>

#include "kernels/base/utf8.h"

namespace serval {
namespace {

bool is_unfit(char32_t c) {
  const bool control = c < 0x20 || (c >= 0x7f && c < 0xa0);
  const bool separator = c == 0x2028 || c == 0x2029;
  const bool direction = c == 0x061c || c == 0x200e || c == 0x200f || (c >= 0x202a && c <= 0x202e) ||
                         (c >= 0x2066 && c <= 0x2069);
  return control || separator || direction || c == 0xfeff;
}

void append_escape(std::string& out, unsigned value) {
  char escape[8];
  std::snprintf(escape, sizeof escape, value < 0x100 ? "\\x%02x" : "\\u%04x", value);
  out += escape;
}

}  // namespace

std::string shown(std::string_view text, size_t max_bytes) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = next_utf8(text.substr(at));
    if (at + step.length > max_bytes) return out + "...";
    if (step.kind != Utf8Kind::kCharacter) {
      for (int i = 0; i < step.length; ++i) append_escape(out, static_cast<unsigned char>(text[at + i]));
    } else if (is_unfit(step.codepoint)) {
      append_escape(out, step.codepoint);
    } else {
      out += text.substr(at, step.length);
    }
    at += step.length;
  }
  return out;
}

std::string in_quotes(std::string_view text, size_t max_bytes) {
  return "'" + shown(text, max_bytes) + "'";
}

}  // namespace serval
