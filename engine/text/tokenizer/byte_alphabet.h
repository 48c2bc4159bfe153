// The alphabet of byte-level BPE: each of the 256 bytes has a printable character, so that a vocabulary of
// arbitrary byte strings can be written as text (Radford et al. 2019, "Language Models are Unsupervised
// Multitask Learners", released with GPT-2). Printable Latin-1 bytes stand for themselves; the 68 others, in
// order, for U+0100 and up.
#pragma once

#include <string>
#include <string_view>

namespace serval {

// The character of a byte as UTF-8, one or two bytes long.
std::string_view byte_character(unsigned char byte);

// The byte of a character, -1 for characters outside the alphabet.
int character_byte(char32_t character);

}  // namespace serval
