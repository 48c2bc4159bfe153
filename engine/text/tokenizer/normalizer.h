// What a tokenizer does to text before anything else: Unicode normal forms, case, stripping, prefixes and
// replacements, in the order of the "normalizer" of tokenizer.json. Knows nothing of tokens.
#pragma once

#include <boost/json/fwd.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer/token_bound.h"

namespace serval {

class Normalizer {
 public:
  // `value`: the "normalizer" of tokenizer.json; null or absent means none. Throws std::runtime_error with a
  // sentence for a type that is not supported, and for a chain that could make text more than 64 times
  // longer.
  static Normalizer from_json(const boost::json::value* value);

  Normalizer(Normalizer&&) noexcept;
  Normalizer& operator=(Normalizer&&) noexcept;
  ~Normalizer();

  bool is_identity() const { return steps_.empty(); }
  // `text` is valid UTF-8, and so is the result. Any thread; linear.
  std::string apply(std::string_view text) const;

  // What apply may leave out, and how many bytes of a text one byte of the result stands for at most.
  Loss loss() const { return loss_; }
  size_t max_shrink() const { return max_shrink_; }

 private:
  struct Step;
  explicit Normalizer(std::vector<Step> steps);
  std::vector<Step> steps_;
  Loss loss_ = Loss::kNothing;
  size_t max_shrink_ = 1;
};

}  // namespace serval
