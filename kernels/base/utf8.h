// UTF-8 as the Unicode Standard defines it (section 3.9, table 3-7): one place that says what is a character,
// what is broken and what may still become a character. Knows nothing of tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace serval {

enum class Utf8Kind {
  kCharacter,   // a well-formed character of `length` bytes
  kBroken,      // a maximal subpart of an ill-formed sequence: `length` bytes that become one U+FFFD
  kIncomplete,  // the text ends inside what may become a character; `length` bytes of it are there
};

struct Utf8Step {
  Utf8Kind kind;
  int length;          // 1..4
  char32_t codepoint;  // of a kCharacter
};

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

// Looks at the start of `bytes`, which is not empty.
Utf8Step next_utf8(std::string_view bytes);

bool is_valid_utf8(std::string_view bytes);

// Every maximal subpart of an ill-formed sequence, and an incomplete character at the end, becomes one
// U+FFFD: what Python's bytes.decode(errors="replace") gives.
std::string repair_utf8(std::string_view bytes);

// Of well-formed text; a part of a character counts where it begins.
inline size_t num_characters(std::string_view text) {
  size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return count;
}

void append_utf8(char32_t codepoint, std::string& out);

// The code point at `pos` of well-formed text, and the position after it.
inline char32_t read_utf8(std::string_view text, size_t& pos) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(pos);
  if (lead < 0x80) return byte(pos++);
  if (lead < 0xE0) {
    pos += 2;
    return (lead & 0x1Fu) << 6 | (byte(pos - 1) & 0x3Fu);
  }
  if (lead < 0xF0) {
    pos += 3;
    return (lead & 0x0Fu) << 12 | (byte(pos - 2) & 0x3Fu) << 6 | (byte(pos - 1) & 0x3Fu);
  }
  pos += 4;
  return (lead & 0x07u) << 18 | (byte(pos - 3) & 0x3Fu) << 12 | (byte(pos - 2) & 0x3Fu) << 6 |
         (byte(pos - 1) & 0x3Fu);
}

}  // namespace serval
