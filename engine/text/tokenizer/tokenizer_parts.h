// What the components of tokenizer.json have in common: sequences of parts, and token ids. Every function
// throws std::runtime_error with a sentence; `where` names the place in it ("normalizer").
#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/json/fields.h"

namespace serval {

// Any JSON integer in [0, 2^31).
int32_t as_token_id(const boost::json::value& value, std::string_view where);

// The parts of a component: the elements of `list_key` when `value` is {"type": "Sequence", list_key: [...]},
// else value itself; nested sequences are flattened; null has no parts. At most 64. Each has a type, and its
// fields are named by it ("normalizer Replace.content").
std::vector<Fields> flatten_sequence(const boost::json::value* value, std::string_view list_key,
                                     std::string_view where);

}  // namespace serval
