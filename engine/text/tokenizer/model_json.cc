#include "engine/text/tokenizer/model_json.h"

#include <stdexcept>

#include "kernels/base/shown.h"

namespace serval {
namespace json = boost::json;
namespace {

constexpr size_t kMaxJsonBytes = 64 << 20;
constexpr size_t kFreeValues = 1'000'000;
constexpr size_t kBytesPerValue = 20;
constexpr size_t kMaxParts = 64;

[[noreturn]] void fail(std::string_view where, std::string_view problem) {
  throw std::runtime_error(std::string(where) + " " + std::string(problem));
}

// An upper bound of the number of values: every one but the first is preceded by one of [ { , outside a
// string.
size_t count_values(std::string_view text) {
  size_t count = 1;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{' || c == ',') {
      ++count;
    }
  }
  return count;
}

void flatten(const json::value& value, std::string_view list_key, std::string_view where,
             std::vector<const json::object*>& parts) {
  const json::object& part = as_object(value, where);
  if (get_string(part, "type", where) != "Sequence") {
    if (parts.size() == kMaxParts) fail(where, "has more than " + std::to_string(kMaxParts) + " parts");
    parts.push_back(&part);
    return;
  }
  for (const json::value& inner : as_array(get_member(part, list_key, where), where))
    flatten(inner, list_key, where, parts);
}

}  // namespace

json::object parse_model_json(std::string_view text) {
  if (text.size() > kMaxJsonBytes) {
    throw std::runtime_error("it has " + std::to_string(text.size()) + " bytes; at most " +
                             std::to_string(kMaxJsonBytes) + " are supported");
  }
  if (count_values(text) > kFreeValues + text.size() / kBytesPerValue) {
    throw std::runtime_error("it has more values than a tokenizer of " + std::to_string(text.size()) +
                             " bytes can need");
  }
  boost::system::error_code error;
  // The values live and die together: one arena, which the object keeps alive, is smaller and faster than an
  // allocation for each.
  json::value value = json::parse(text, error, json::make_shared_resource<json::monotonic_resource>());
  if (error) throw std::runtime_error("it is not valid JSON: " + error.message());
  if (!value.is_object()) throw std::runtime_error("it is not a JSON object");
  return std::move(value.get_object());
}

const json::object& as_object(const json::value& value, std::string_view where) {
  if (!value.is_object()) fail(where, "is not a JSON object");
  return value.get_object();
}

const json::array& as_array(const json::value& value, std::string_view where) {
  if (!value.is_array()) fail(where, "is not a JSON array");
  return value.get_array();
}

std::string_view as_string(const json::value& value, std::string_view where) {
  if (!value.is_string()) fail(where, "is not a JSON string");
  return value.get_string();
}

const json::value* find_member(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

const json::value& get_member(const json::object& object, std::string_view key, std::string_view where) {
  const json::value* value = find_member(object, key);
  if (value == nullptr) fail(where, "has no " + in_quotes(key));
  return *value;
}

std::string_view get_string(const json::object& object, std::string_view key, std::string_view where) {
  return as_string(get_member(object, key, where), std::string(where) + "." + std::string(key));
}

bool get_bool(const json::object& object, std::string_view key, bool when_absent, std::string_view where) {
  const json::value* value = find_member(object, key);
  if (value == nullptr) return when_absent;
  if (!value->is_bool()) fail(std::string(where) + "." + std::string(key), "is not true or false");
  return value->get_bool();
}

int32_t as_id(const json::value& value, std::string_view where) {
  const int64_t* number = value.if_int64();
  if (number == nullptr || *number < 0 || *number > INT32_MAX) fail(where, "is not a token id");
  return static_cast<int32_t>(*number);
}

std::vector<const json::object*> flatten_sequence(const json::value* value, std::string_view list_key,
                                                  std::string_view where) {
  std::vector<const json::object*> parts;
  if (value != nullptr) flatten(*value, list_key, where, parts);
  return parts;
}

}  // namespace serval
