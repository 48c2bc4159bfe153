// Text from outside, a file's names or a client's words, made fit for a terminal or a log: one line of a
// bounded length, in which nothing moves the cursor, colours, rings or turns the direction of reading.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace serval {

inline constexpr size_t kMaxShownBytes = 120;      // of a name
inline constexpr size_t kMaxSentenceBytes = 2000;  // of a whole sentence

// At most `max_bytes` of `text`, cut after a whole character and then ending in "...". Control characters,
// separators of lines and marks of direction become \x1b or \u202e, bytes that are no UTF-8 \xff. What is
// shown already stays as it is.
std::string shown(std::string_view text, size_t max_bytes = kMaxShownBytes);

// The same in single quotes.
std::string in_quotes(std::string_view text, size_t max_bytes = kMaxShownBytes);

}  // namespace serval
