// What a tokenizer puts around a text, or around two that it joins: the "post_processor" of tokenizer.json.
#pragma once

#include <boost/json/fwd.hpp>
#include <optional>
#include <vector>

#include "engine/text/tokenizer/tokenizer.h"

namespace serval {

// What stands before, between and behind two texts. num_of_first: of the tokens between them, those of the first one's kind;
// nothing: all tokens are of one kind.
struct PairTemplate {
  std::vector<TokenId> prefix, middle, suffix;
  std::optional<size_t> num_of_first;
};

// Null puts nothing. Two texts are joined by a lone processor that has the first one first, and tokens of at most two kinds.
// Throws std::runtime_error with a sentence for a type that is not supported, and when it
// would be more than 64 tokens on a side.
void read_post_processor(const boost::json::value* value, std::vector<TokenId>& prefix,
                         std::vector<TokenId>& suffix, std::optional<PairTemplate>& pair);

}  // namespace serval
