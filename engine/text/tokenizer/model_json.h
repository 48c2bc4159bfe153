// Reading the JSON files of a model folder: bounded in size, depth and number of values, and strict about
// types. Every function throws std::runtime_error with a sentence; `where` names the place in it ("model",
// "added_tokens[3]").
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace serval {

// The object the file holds. Files above 64 MiB are refused, and so are those whose values would take several
// times the memory of their text (more than one value in 20 bytes, beyond the first million).
boost::json::object parse_model_json(std::string_view text);

const boost::json::object& as_object(const boost::json::value& value, std::string_view where);
const boost::json::array& as_array(const boost::json::value& value, std::string_view where);
std::string_view as_string(const boost::json::value& value, std::string_view where);

// A member, null when it is absent or JSON null.
const boost::json::value* find_member(const boost::json::object& object, std::string_view key);
// A member that must be there and not null.
const boost::json::value& get_member(const boost::json::object& object, std::string_view key,
                                     std::string_view where);
std::string_view get_string(const boost::json::object& object, std::string_view key, std::string_view where);
bool get_bool(const boost::json::object& object, std::string_view key, bool when_absent,
              std::string_view where);
// Any JSON integer in [0, 2^31).
int32_t as_id(const boost::json::value& value, std::string_view where);

// The parts of a component: the elements of `list_key` when `value` is {"type": "Sequence", list_key: [...]},
// else value itself; nested sequences are flattened; null has no parts. At most 64.
std::vector<const boost::json::object*> flatten_sequence(const boost::json::value* value,
                                                         std::string_view list_key, std::string_view where);

}  // namespace serval
