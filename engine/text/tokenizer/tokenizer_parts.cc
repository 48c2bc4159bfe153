#include "engine/text/tokenizer/tokenizer_parts.h"

#include <stdexcept>
#include <string>

namespace serval {
namespace json = boost::json;
namespace {

constexpr size_t kMaxParts = 64;

void flatten(const json::value& value, std::string_view list_key, std::string_view where,
             std::vector<Fields>& parts) {
  if (!value.is_object()) throw std::runtime_error(std::string(where) + " is not a JSON object");
  const json::object& object = value.get_object();
  const Fields part(object, "", std::string(where) + ".");
  const std::string type = part.get_string("type");
  if (type != "Sequence") {
    if (parts.size() == kMaxParts)
      throw std::runtime_error(std::string(where) + " has more than " + std::to_string(kMaxParts) + " parts");
    parts.emplace_back(object, "", std::string(where) + " " + type + ".");
    return;
  }
  for (const json::value& inner : part.get_array(list_key)) flatten(inner, list_key, where, parts);
}

}  // namespace

int32_t as_token_id(const json::value& value, std::string_view where) {
  const int64_t* number = value.if_int64();
  if (number == nullptr || *number < 0 || *number > INT32_MAX)
    throw std::runtime_error(std::string(where) + " is not a token id");
  return static_cast<int32_t>(*number);
}

std::vector<Fields> flatten_sequence(const json::value* value, std::string_view list_key,
                                     std::string_view where) {
  std::vector<Fields> parts;
  if (value != nullptr) flatten(*value, list_key, where, parts);
  return parts;
}

}  // namespace serval
