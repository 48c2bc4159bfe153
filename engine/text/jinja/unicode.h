// Python's view of text on UTF-8 bytes: a string is a sequence of code points. Invalid bytes never crash:
// each counts as one character and is copied as it is. Knows nothing of values or limits; every function is
// linear in its input.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace serval::jinja {

bool is_ascii(std::string_view text);
size_t num_chars(std::string_view text);
// Bytes of the character that starts at text[at] (1 for an invalid byte).
size_t char_bytes(std::string_view text, size_t at);
// Its code point; U+FFFD for an invalid byte.
char32_t char_at(std::string_view text, size_t at);

// Looking up what a character is costs as much as copying so many bytes.
inline constexpr size_t kLetterBytes = 8;

// str.isspace, str.isprintable and friends for one code point.
bool is_space(char32_t c);
bool is_printable(char32_t c);
bool is_alpha(char32_t c);
bool is_digit(char32_t c);
bool is_upper(char32_t c);
bool is_lower(char32_t c);

std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
std::string capitalize(std::string_view text);   // first character titlecase, the rest lower
std::string title_words(std::string_view text);  // str.title: every run of cased characters

enum class Side { kLeft, kRight, kBoth };
// Without `chars`: Unicode white space; with: any of its characters.
std::string_view strip(std::string_view text, Side side);
std::string_view strip(std::string_view text, Side side, std::string_view chars);

// Position of the first (last) occurrence at or after `from`, npos when there is none. Linear in the worst
// case, which std::string::find is not: a template could otherwise search "aaa...ab" in "aaa...a" for
// minutes.
size_t find(std::string_view text, std::string_view needle, size_t from = 0);
size_t rfind(std::string_view text, std::string_view needle);

}  // namespace serval::jinja
