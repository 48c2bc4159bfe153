// From a token's name in the vocabulary to the bytes it stands for: the "decoder" of tokenizer.json, applied
// to one token alone. A decoder for which that is not possible (whose result depends on neighbours beyond a
// space at the beginning or the end) is refused.
#pragma once

#include <boost/json/fwd.hpp>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace serval {

class Fields;

class TokenDecoder {
 public:
  // Throws std::runtime_error with a sentence for a type that is not supported, and when there is none.
  static TokenDecoder from_json(const boost::json::value* value);
  // Names in the byte alphabet, see byte_alphabet.h.
  static TokenDecoder byte_level();

  // The bytes of a name when it follows other text.
  std::string decode(std::string_view name) const;
  // Those of an added token, whose name was never written in the byte alphabet.
  std::string decode_added(std::string_view content) const {
    return is_byte_level_ ? std::string(content) : decode(content);
  }
  bool strips_leading_space() const { return strips_leading_space_; }
  bool strips_trailing_space() const { return strips_trailing_space_; }

 private:
  using Step = std::function<std::string(std::string_view)>;

  void add(const Fields& part);
  void add_strip(const Fields& part);
  void add_replacement(const Fields& part);
  void replace_text(std::string from, std::string to);
  void join_words(std::string continuing_prefix, bool cleans_up);

  std::vector<Step> steps_;  // any thread
  bool is_byte_level_ = false;
  bool has_byte_tokens_ = false;  // <0x0A> is a line feed
  bool is_fused_ = false;         // while reading: what follows sees the whole text
  bool strips_leading_space_ = false;
  bool strips_trailing_space_ = false;
};

}  // namespace serval
