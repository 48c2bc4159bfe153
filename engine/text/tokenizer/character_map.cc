#include "engine/text/tokenizer/character_map.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "kernels/base/utf8.h"

namespace serval {
namespace {

constexpr size_t kMaxReplacementBytes = 256;  // real ones have up to 33 bytes

[[noreturn]] void fail(const std::string& problem) {
  throw std::runtime_error("its normalisation map " + problem);
}

// A unit of the trie.
bool has_leaf(uint32_t unit) {
  return (unit >> 8 & 1) != 0;
}
uint32_t label_of(uint32_t unit) {
  return unit & (1u << 31 | 0xFF);
}
uint32_t value_of(uint32_t unit) {
  return unit & 0x7FFFFFFFu;
}
size_t offset_of(uint32_t unit) {
  return static_cast<size_t>(unit >> 10) << ((unit & (1u << 9)) >> 6);
}

bool continues_character(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

}  // namespace

// A search walks from a unit i to the block i ^ offset and reads any of its 256 units, so every block must
// lie inside; a unit with a leaf has its replacement's place at the block's first unit.
CharacterMap::CharacterMap(std::string_view bytes) {
  if (bytes.empty()) return;
  if (bytes.size() < 4) fail("is cut off");
  uint32_t trie_bytes;
  std::memcpy(&trie_bytes, bytes.data(), sizeof trie_bytes);
  if (trie_bytes < 1024 || trie_bytes % 4 != 0 || trie_bytes >= bytes.size() - 4)
    fail("has a trie of wrong size");
  units_.resize(trie_bytes / 4);
  std::memcpy(units_.data(), bytes.data() + 4, trie_bytes);
  replacements_ = bytes.substr(4 + trie_bytes);
  if (replacements_.back() != '\0') fail("does not end its last replacement");
  if (!is_valid_utf8(replacements_)) fail("replaces by what is no text");
  size_t begin = 0;
  for (size_t end = 0; end < replacements_.size(); ++end) {
    if (replacements_[end] != '\0') continue;
    if (end - begin > kMaxReplacementBytes)
      fail("has a replacement of " + std::to_string(end - begin) + " bytes");
    begin = end + 1;
  }
  for (size_t i = 0; i < units_.size(); ++i) {
    if (units_[i] >> 31 != 0) continue;  // a value; its label matches no byte
    const size_t block = i ^ offset_of(units_[i]);
    if ((block | 0xFF) >= units_.size()) fail("points outside its trie");
    if (!has_leaf(units_[i])) continue;
    const uint32_t place = value_of(units_[block]);
    if (place >= replacements_.size() || continues_character(replacements_[place]))
      fail("points outside its replacements");
  }
  if (units_[0] >> 31 != 0) fail("has no root");
  growth_ = longest_growth();
}

// Level by level, so that a unit that several sequences share is met with the shortest of them.
double CharacterMap::longest_growth() const {
  double growth = 1;
  std::vector<bool> was_met(units_.size());
  std::vector<size_t> blocks = {offset_of(units_[0])};
  for (size_t length = 1; !blocks.empty(); ++length) {
    std::vector<size_t> below;
    for (const size_t block : blocks) {
      for (uint32_t byte = 1; byte < 256; ++byte) {
        const size_t at = block ^ byte;
        if (label_of(units_[at]) != byte || was_met[at]) continue;
        was_met[at] = true;
        below.push_back(at ^ offset_of(units_[at]));
        if (!has_leaf(units_[at])) continue;
        const size_t replaced = std::strlen(replacements_.data() + value_of(units_[below.back()]));
        growth = std::max(growth, static_cast<double>(replaced) / static_cast<double>(length));
      }
    }
    blocks = std::move(below);
  }
  return growth;
}

std::optional<std::string_view> CharacterMap::shortest(std::string_view text) const {
  if (empty()) return std::nullopt;
  size_t at = offset_of(units_[0]);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    at ^= byte;
    const uint32_t unit = units_[at];
    if (byte == 0 || label_of(unit) != byte) return std::nullopt;
    at ^= offset_of(unit);
    if (has_leaf(unit)) return std::string_view(replacements_.data() + value_of(units_[at]));
  }
  return std::nullopt;
}

}  // namespace serval
