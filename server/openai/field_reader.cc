#include "server/openai/field_reader.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace serval {

namespace json = boost::json;

const json::value* FieldReader::find(std::string_view name) {
  asked_.push_back(name);
  if (failed_) return nullptr;
  const json::value* value = object_.if_contains(name);
  return value && !value->is_null() ? value : nullptr;
}

void FieldReader::fail(std::string_view name, const char* code, std::string message) {
  const std::string field = prefix_ + std::string(name);
  fail(invalid(field, code, field + ' ' + message));
}

void FieldReader::fail(Error error) {
  if (failed_) return;
  failed_ = true;
  error_ = std::move(error);
}

// A number without a fraction is an integer however it is spelled (2.0, 1e3), as JSON Schema has it.
std::optional<int64_t> FieldReader::as_integer(std::string_view name, const json::value& value) {
  if (value.is_int64()) return value.get_int64();
  if (!value.is_double() && !value.is_uint64()) {
    fail(name, "invalid_type", "must be an integer.");
    return std::nullopt;
  }
  const double number = value.is_double() ? value.get_double() : static_cast<double>(value.get_uint64());
  if (std::isfinite(number) && number != std::floor(number)) {
    fail(name, "invalid_type", "must be an integer.");
  } else if (!(std::abs(number) < 0x1p53)) {
    fail(name, "value_out_of_range", "is not a 64-bit integer.");
  } else {
    return static_cast<int64_t>(number);
  }
  return std::nullopt;
}

std::optional<std::string> FieldReader::as_string(std::string_view name, const json::value& value,
                                                  size_t max_bytes) {
  const json::string* text = value.if_string();
  if (!text) {
    fail(name, "invalid_type", "must be a string.");
    return std::nullopt;
  }
  if (text->size() > max_bytes) {
    fail(name, "string_too_long",
         "has " + std::to_string(text->size()) + " bytes; at most " + std::to_string(max_bytes) +
             " are allowed.");
    return std::nullopt;
  }
  return std::string(text->data(), text->size());
}

std::optional<int64_t> FieldReader::integer(std::string_view name) {
  const json::value* value = find(name);
  return value ? as_integer(name, *value) : std::nullopt;
}

std::optional<double> FieldReader::number(std::string_view name) {
  const json::value* value = find(name);
  if (!value) return std::nullopt;
  if (!value->is_number()) {
    fail(name, "invalid_type", "must be a number.");
    return std::nullopt;
  }
  const double number = value->to_number<double>();
  if (!std::isfinite(number)) {
    fail(name, "value_out_of_range", "is not a number that can be meant.");
    return std::nullopt;
  }
  return number == 0 ? 0 : number;  // -0.0, as rounding leaves it
}

std::optional<bool> FieldReader::boolean(std::string_view name) {
  const json::value* value = find(name);
  if (!value) return std::nullopt;
  if (!value->is_bool()) {
    fail(name, "invalid_type", "must be true or false.");
    return std::nullopt;
  }
  return value->get_bool();
}

std::optional<std::string> FieldReader::short_string(std::string_view name) {
  const json::value* value = find(name);
  return value ? as_string(name, *value, kMaxShortStringBytes) : std::nullopt;
}

std::optional<std::string> FieldReader::name(std::string_view name) {
  std::optional<std::string> text = short_string(name);
  if (!text) return std::nullopt;
  if (std::any_of(text->begin(), text->end(),
                  [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; })) {
    fail(name, "invalid_value", "has a control character.");
    return std::nullopt;
  }
  return text;
}

std::optional<std::string> FieldReader::text(std::string_view name) {
  const json::value* value = find(name);
  return value ? as_string(name, *value, static_cast<size_t>(-1)) : std::nullopt;
}

std::vector<int64_t> FieldReader::integers(std::string_view name) {
  std::vector<int64_t> result;
  const json::value* value = find(name);
  if (!value) return result;
  if (!value->is_array()) {
    fail(name, "invalid_type", "must be an array of integers.");
    return result;
  }
  result.reserve(value->get_array().size());
  for (const json::value& item : value->get_array()) {
    const std::optional<int64_t> number = as_integer(name, item);
    if (!number) return {};
    result.push_back(*number);
  }
  return result;
}

std::vector<std::string> FieldReader::short_strings(std::string_view name) {
  std::vector<std::string> result;
  const json::value* value = find(name);
  if (!value) return result;
  if (!value->is_string() && !value->is_array()) {
    fail(name, "invalid_type", "must be a string or an array of strings.");
    return result;
  }
  const auto add = [&](const json::value& item) {
    std::optional<std::string> text = as_string(name, item, kMaxShortStringBytes);
    if (text) result.push_back(std::move(*text));
  };
  if (value->is_string()) {
    add(*value);
  } else {
    for (const json::value& item : value->get_array()) {
      add(item);
      if (failed_) return {};
    }
  }
  return result;
}

void FieldReader::ignore(std::initializer_list<std::string_view> names) {
  asked_.insert(asked_.end(), names);
}

int FieldReader::num_unknown() const {
  const std::set<std::string_view> known(asked_.begin(), asked_.end());
  const auto given = std::count_if(known.begin(), known.end(),
                                   [&](std::string_view name) { return object_.contains(name); });
  return static_cast<int>(object_.size()) - static_cast<int>(given);
}

std::optional<std::string> FieldReader::unknown() const {
  for (const auto& [key, value] : object_) {
    const std::string_view name(key.data(), key.size());
    if (std::find(asked_.begin(), asked_.end(), name) == asked_.end())
      return prefix_ + std::string(name.substr(0, 64));
  }
  return std::nullopt;
}

}  // namespace serval
