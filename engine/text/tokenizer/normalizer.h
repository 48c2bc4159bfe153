// What a tokenizer does to text before anything else: Unicode normal forms, case, stripping, prefixes and
// replacements, in the order of the "normalizer" of tokenizer.json. Knows nothing of tokens.
#pragma once

#include <boost/json/fwd.hpp>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer/token_bound.h"

namespace serval {

class Normalizer {
 public:
  // `value`: the "normalizer" of tokenizer.json; null or absent means none. Throws std::runtime_error with a
  // sentence for a type that is not supported, and for a chain that could make text more than 64 times
  // longer. lowers_first: a "Lowercase" stands before all of it.
  static Normalizer from_json(const boost::json::value* value, bool lowers_first = false);
  // One of the types without fields ("NFC").
  static Normalizer of_type(std::string_view type);

  bool is_identity() const { return steps_.empty(); }
  // `text` is valid UTF-8, and so is the result. Any thread; linear.
  std::string apply(std::string_view text) const;

  // What apply may leave out, and how many bytes of a text one byte of the result stands for at most.
  Loss loss() const { return loss_; }
  size_t max_shrink() const { return max_shrink_; }
  // Whether the result is in the byte alphabet (byte_alphabet.h).
  bool writes_bytes() const { return writes_bytes_; }

 private:
  using Step = std::function<std::string(std::string_view)>;
  class Builder;
  std::vector<Step> steps_;
  Loss loss_ = Loss::kNothing;
  size_t max_shrink_ = 1;
  bool writes_bytes_ = false;
};

}  // namespace serval
