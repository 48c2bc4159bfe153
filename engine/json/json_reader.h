// JSON from outside, from a client's body to a model folder's files, as a tree of bounded depth and number of
// values: the only place where JSON is parsed (but for a checkpoint's header, which is too large for a tree).
// Knows nothing of what the fields mean; that is asked through Fields. Boost.JSON's event parser does the
// grammar: RFC 8259 to the letter, in valid UTF-8. Pure; any thread.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstddef>
#include <filesystem>
#include <string_view>

#include "kernels/base/status.h"

namespace serval {

struct JsonLimits {
  // Nested objects and arrays.
  size_t max_depth = 64;
  // Members and elements: bounds the tree's memory whatever the text.
  size_t max_values = 2'000'000;
  // A key twice in one object: refused, because two readers could see different things; or the last counts,
  // as Python has it.
  bool last_key_counts = false;
};

// Of files: a value for every 20 bytes, beyond the first million.
JsonLimits file_limits(size_t num_bytes);

// `what` begins the sentence of an error. Codes: invalid_json, json_too_deep, json_too_large, duplicate_key
// (param: the key). A negative zero that is written as an integer comes out as a double, so that readers can
// see it. The tree lives in an arena of its own, which its parts keep alive.
Result<boost::json::value> read_json(std::string_view text, const JsonLimits& limits = {},
                                     std::string_view what = "The body");
// The same where the top level must be an object; otherwise invalid_type.
Result<boost::json::object> read_json_object(std::string_view text, const JsonLimits& limits = {},
                                             std::string_view what = "The body");

inline constexpr size_t kMaxJsonFileBytes = size_t{64} << 20;

// The object that a file of a model folder holds, by file_limits. Throws std::runtime_error with a sentence
// that begins with `what` (the file) or the path: missing, larger than max_bytes, no object, out of bounds.
boost::json::object parse_json_file(std::string_view text, std::string_view what,
                                    size_t max_bytes = kMaxJsonFileBytes);
boost::json::object read_json_file(const std::filesystem::path& path, size_t max_bytes);

// Without bounds, for what the user's own programs wrote: reports, traces.
inline constexpr JsonLimits kOwnJson{.max_values = static_cast<size_t>(-1), .last_key_counts = true};
boost::json::object read_own_json_file(const std::filesystem::path& path);

}  // namespace serval
