// Keeps clients' texts from being read as special tokens: a character that no text has is put into each name
// of such a token, so that the tokenizer does not see it, and leaves the character out (Tokenizer::encode).
// Knows nothing of templates, which carry the character to where they put the text.
#pragma once

#include <boost/json/fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer/prefix_trie.h"
#include "kernels/base/status.h"

namespace serval {

class NameBreaker {
 public:
  // Names of one character cannot be broken and stay what they are.
  explicit NameBreaker(const std::vector<std::string>& names);

  // Breaks the names in all texts of `context`, its keys among them, and those that a text only begins and
  // what follows it could end. Returns the character, one of those that Unicode keeps for such use (U+FDD0 to
  // U+FDEF);
  // "": there was nothing to break. An error: the texts have all 32. Any thread; linear.
  Result<std::string> break_names(boost::json::object& context) const;

 private:
  // Where in `text` the character belongs.
  std::vector<size_t> places_in(std::string_view text) const;
  bool has_names(const boost::json::value& value) const;
  void break_in(boost::json::value& value, std::string_view breaker) const;
  std::string broken(std::string_view text, std::string_view breaker) const;

  PrefixTrie trie_;
  bool has_any_ = false;
};

}  // namespace serval
