// Strict JSON from a client: depth, size, duplicate keys and everything else that two readers could see
// differently end in a 400. Pure; any thread. Boost.JSON's event parser does the grammar.
#pragma once

#include <boost/json/fwd.hpp>
#include <cstddef>
#include <memory>
#include <string_view>

#include "kernels/base/status.h"

namespace serval {

struct JsonLimits {
  size_t max_depth = 64;          // nested objects and arrays
  size_t max_values = 2'000'000;  // members and elements: bounds the tree's memory whatever the text
};

// The top level must be an object. Codes: invalid_json, json_too_deep, json_too_large, duplicate_key (param:
// the key), invalid_type. A negative zero that is written as an integer comes out as a double, so that
// readers can see it.
Result<std::shared_ptr<const boost::json::object>> read_json_object(std::string_view text,
                                                                    const JsonLimits& limits = {});

}  // namespace serval
