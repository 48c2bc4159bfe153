// The table by which sentencepiece normalises (the "precompiled charsmap" of its models and of
// tokenizer.json's Precompiled): sequences of characters to what replaces them. A 32-bit length, a
// double-array trie of that many bytes (Yata's darts-clone), and the replacements it points at, each ended by
// a zero byte.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace serval {

class CharacterMap {
 public:
  // `bytes` may be empty: it maps nothing. Throws std::runtime_error with a sentence ("its normalisation map
  // ...") when a search could leave the table, or a replacement is long or no valid UTF-8.
  explicit CharacterMap(std::string_view bytes);

  bool empty() const { return units_.empty(); }
  // What replaces the shortest sequence that `text` begins with; none: nothing does.
  std::optional<std::string_view> shortest(std::string_view text) const;
  // How many times longer than its sequence a replacement is, at most.
  double growth() const { return growth_; }

 private:
  double longest_growth() const;

  std::vector<uint32_t> units_;
  std::string replacements_;
  double growth_ = 1;
};

}  // namespace serval
