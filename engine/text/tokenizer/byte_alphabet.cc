#include "engine/text/tokenizer/byte_alphabet.h"

#include <array>

#include "kernels/base/utf8.h"

namespace serval {
namespace {

constexpr bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr int kNumOthers = 68;

struct Alphabet {
  std::array<std::string, 256> text;
  std::array<int, 0x100 + kNumOthers> byte_of;

  Alphabet() {
    byte_of.fill(-1);
    char32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const char32_t character = stands_for_itself(byte) ? static_cast<char32_t>(byte) : next++;
      append_utf8(character, text[byte]);
      byte_of[character] = byte;
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

std::string_view byte_character(unsigned char byte) {
  return alphabet().text[byte];
}

int character_byte(char32_t character) {
  const auto& byte_of = alphabet().byte_of;
  return character < byte_of.size() ? byte_of[character] : -1;
}

}  // namespace serval
