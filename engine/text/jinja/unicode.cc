#include "engine/text/jinja/unicode.h"

#include <string.h>
#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <vector>

#include "kernels/base/utf8.h"

namespace serval::jinja {
namespace {

constexpr char32_t kReplacement = 0xFFFD;

struct Decoded {
  char32_t code_point;
  uint8_t bytes;
};

// An invalid byte is a character of its own.
Decoded decode(std::string_view text, size_t at) {
  const Utf8Step step = next_utf8(text.substr(at));
  if (step.kind != Utf8Kind::kCharacter) return {kReplacement, 1};
  return {step.codepoint, static_cast<uint8_t>(step.length)};
}

// The start of the character that ends just before `end`.
size_t previous_char(std::string_view text, size_t end) {
  for (size_t back = 1; back <= 4 && back <= end; ++back) {
    if (decode(text, end - back).bytes == back) return end - back;
  }
  return end - 1;
}

template <class Drop>
std::string_view strip_if(std::string_view text, Side side, Drop drop) {
  size_t begin = 0, end = text.size();
  if (side != Side::kRight) {
    while (begin < end && drop(begin)) begin += char_bytes(text, begin);
  }
  if (side != Side::kLeft) {
    while (end > begin) {
      const size_t last = previous_char(text, end);
      if (last < begin || !drop(last)) break;
      end = last;
    }
  }
  return text.substr(begin, end - begin);
}

template <class Ascii, class Full>
std::string map_case(std::string_view text, Ascii ascii, Full full) {
  std::string out;
  if (is_ascii(text)) {
    out.resize(text.size());
    std::transform(text.begin(), text.end(), out.begin(), ascii);
    return out;
  }
  icu::UnicodeString wide =
      icu::UnicodeString::fromUTF8(icu::StringPiece(text.data(), static_cast<int32_t>(text.size())));
  full(wide);
  wide.toUTF8String(out);
  return out;
}

char ascii_upper(char c) {
  return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
}
char ascii_lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}

bool is_cased(char32_t c) {
  return u_isupper(c) || u_islower(c) || u_istitle(c);
}

}  // namespace

bool is_ascii(std::string_view text) {
  uint8_t seen = 0;
  for (char c : text) seen |= static_cast<uint8_t>(c);
  return seen < 0x80;
}

size_t num_chars(std::string_view text) {
  if (is_ascii(text)) return text.size();
  size_t count = 0;
  for (size_t at = 0; at < text.size(); at += char_bytes(text, at)) ++count;
  return count;
}

size_t char_bytes(std::string_view text, size_t at) {
  return decode(text, at).bytes;
}
char32_t char_at(std::string_view text, size_t at) {
  return decode(text, at).code_point;
}

bool is_space(char32_t c) {
  // Python: bidirectional class WS, B or S, or category Zs; that is ICU's white space and the four ASCII
  // separators.
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F);
  return u_isUWhiteSpace(c);
}

bool is_printable(char32_t c) {
  if (c < 0x7F) return c >= 0x20;
  switch (u_charType(c)) {
    case U_CONTROL_CHAR:
    case U_FORMAT_CHAR:
    case U_SURROGATE:
    case U_PRIVATE_USE_CHAR:
    case U_UNASSIGNED:
    case U_LINE_SEPARATOR:
    case U_PARAGRAPH_SEPARATOR:
    case U_SPACE_SEPARATOR:
      return false;
    default:
      return true;
  }
}

bool is_alpha(char32_t c) {
  return u_isalpha(c);
}
bool is_digit(char32_t c) {
  return u_isdigit(c);
}
bool is_upper(char32_t c) {
  return u_isUUppercase(c);
}
bool is_lower(char32_t c) {
  return u_isULowercase(c);
}

std::string to_upper(std::string_view text) {
  return map_case(text, ascii_upper, [](icu::UnicodeString& s) { s.toUpper(icu::Locale::getRoot()); });
}

std::string to_lower(std::string_view text) {
  return map_case(text, ascii_lower, [](icu::UnicodeString& s) { s.toLower(icu::Locale::getRoot()); });
}

std::string capitalize(std::string_view text) {
  if (text.empty()) return {};
  const size_t first = char_bytes(text, 0);
  std::string out;
  append_utf8(u_totitle(char_at(text, 0)), out);
  return out + to_lower(text.substr(first));
}

std::string title_words(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool in_word = false;
  for (size_t at = 0; at < text.size(); at += char_bytes(text, at)) {
    const char32_t c = char_at(text, at);
    append_utf8(in_word ? u_tolower(c) : u_totitle(c), out);
    in_word = is_cased(c);
  }
  return out;
}

std::string_view strip(std::string_view text, Side side) {
  return strip_if(text, side, [&](size_t at) { return is_space(char_at(text, at)); });
}

std::string_view strip(std::string_view text, Side side, std::string_view chars) {
  constexpr size_t kFew = 64;
  if (chars.size() <= kFew) {
    std::u32string set;
    for (size_t at = 0; at < chars.size(); at += char_bytes(chars, at)) set += char_at(chars, at);
    return strip_if(text, side,
                    [&](size_t at) { return set.find(char_at(text, at)) != std::u32string::npos; });
  }
  // A table, so that a long `chars` costs its length once and not once per character of `text`.
  std::vector<bool> table(0x110000);
  for (size_t at = 0; at < chars.size(); at += char_bytes(chars, at)) table[char_at(chars, at)] = true;
  return strip_if(text, side, [&](size_t at) { return table[char_at(text, at)]; });
}

size_t find(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  // glibc's memmem is the two-way algorithm.
  const void* hit = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  return hit ? static_cast<size_t>(static_cast<const char*>(hit) - text.data()) : std::string_view::npos;
}

size_t rfind(std::string_view text, std::string_view needle) {
  const std::string reversed_text(text.rbegin(), text.rend());
  const std::string reversed_needle(needle.rbegin(), needle.rend());
  const size_t at = find(reversed_text, reversed_needle);
  return at == std::string_view::npos ? at : text.size() - at - needle.size();
}

}  // namespace serval::jinja
