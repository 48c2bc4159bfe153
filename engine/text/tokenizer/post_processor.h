// What a tokenizer puts around a text: the "post_processor" of tokenizer.json, as far as one text is
// concerned.
#pragma once

#include <boost/json/fwd.hpp>
#include <vector>

#include "engine/text/tokenizer/tokenizer.h"

namespace serval {

// Null puts nothing. Throws std::runtime_error with a sentence for a type that is not supported, and when it
// would be more than 64 tokens on a side.
void read_post_processor(const boost::json::value* value, std::vector<TokenId>& prefix,
                         std::vector<TokenId>& suffix);

}  // namespace serval
