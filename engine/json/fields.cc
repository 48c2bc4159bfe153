#include "engine/json/fields.h"

#include <boost/json/serialize.hpp>
#include <cmath>
#include <sstream>

#include "kernels/base/shown.h"

namespace serval {

namespace json = boost::json;

namespace {

constexpr const char* kInvalidType = "invalid_type";
constexpr const char* kOutOfRange = "value_out_of_range";
// Of a field's name in a sentence.
constexpr size_t kMaxNameBytes = 64;

std::string sentence(const std::string& source, const std::string& message) {
  return source.empty() ? message : source + ": " + message;
}

Error with_full_stop(Error error) {
  error.message += '.';
  return error;
}

// The integer that a number is; none: it has a fraction, or no double tells it from its neighbours.
std::optional<int64_t> whole(const json::value& value) {
  if (value.is_int64()) return value.get_int64();
  if (!value.is_double()) return std::nullopt;
  const double number = value.get_double();
  if (number != std::floor(number) || !(std::abs(number) < 0x1p53)) return std::nullopt;
  return static_cast<int64_t>(number);
}

bool has_fraction(const json::value& value) {
  if (!value.is_number()) return true;
  const double number = value.to_number<double>();
  return std::isfinite(number) && number != std::floor(number);
}

}  // namespace

FieldError::FieldError(const std::string& source, Error error)
    : std::runtime_error(sentence(source, error.message)), error_(with_full_stop(std::move(error))) {}

std::string shown_value(const json::value& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  return shown(json::serialize(value));
}

Fields::Fields(const json::object& object, std::string source, std::string prefix)
    : object_(&object), source_(std::move(source)), prefix_(std::move(prefix)), was_asked_(object.size()) {}

void Fields::refuse(std::string_view field, const std::string& why, const char* code) const {
  const std::string name = prefix_ + std::string(field);
  throw FieldError(source_, invalid(name, code, name + " " + why));
}

const json::value* Fields::find(std::string_view field) const {
  const auto member = object_->find(field);
  if (member == object_->end()) return nullptr;
  was_asked_[static_cast<size_t>(member - object_->begin())] = true;
  return member->value().is_null() ? nullptr : &member->value();
}

const json::value& Fields::get(std::string_view field) const {
  const json::value* value = find(field);
  if (value == nullptr) refuse(field, "is missing");
  return *value;
}

std::optional<int64_t> Fields::find_integer(std::string_view field) const {
  const json::value* value = find(field);
  if (value == nullptr) return std::nullopt;
  if (has_fraction(*value)) refuse(field, "must be an integer", kInvalidType);
  const std::optional<int64_t> integer = whole(*value);
  if (!integer) refuse(field, "is not a 64-bit integer", kOutOfRange);
  return integer;
}

std::optional<int> Fields::find_int(std::string_view field, int low, int high) const {
  const json::value* value = find(field);
  if (value == nullptr) return std::nullopt;
  const std::optional<int64_t> integer = whole(*value);
  if (integer && *integer >= low && *integer <= high) return static_cast<int>(*integer);
  refuse(field, "must be an integer from " + std::to_string(low) + " to " + std::to_string(high) + ", not " +
                    shown_value(*value));
}

int Fields::get_int(std::string_view field, int low, int high) const {
  get(field);
  return *find_int(field, low, high);
}

std::optional<double> Fields::find_any_number(std::string_view field) const {
  const json::value* value = find(field);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) refuse(field, "must be a number, not " + shown_value(*value), kInvalidType);
  return value->to_number<double>();
}

std::optional<double> Fields::find_finite(std::string_view field) const {
  const json::value* value = find(field);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) refuse(field, "must be a number", kInvalidType);
  const double number = value->to_number<double>();
  if (!std::isfinite(number)) refuse(field, "is not a number that can be meant", kOutOfRange);
  return number == 0 ? 0 : number;
}

std::optional<double> Fields::find_number(std::string_view field, double low, double high) const {
  const std::optional<double> number = find_any_number(field);
  if (!number || (*number >= low && *number <= high)) return number;
  std::ostringstream why;
  why << "must be a number from " << low << " to " << high << ", not " << shown_value(*find(field));
  refuse(field, why.str());
}

std::optional<double> Fields::find_positive(std::string_view field, double high) const {
  const std::optional<double> number = find_number(field, 0, high);
  if (number == 0.0) refuse(field, "must be above 0");
  return number;
}

std::optional<bool> Fields::find_bool(std::string_view field) const {
  const json::value* value = find(field);
  if (value == nullptr) return std::nullopt;
  if (value->is_bool()) return value->get_bool();
  refuse(field, "must be true or false" + (source_.empty() ? "" : ", not " + shown_value(*value)),
         kInvalidType);
}

bool Fields::get_bool(std::string_view field, bool when_absent) const {
  return find_bool(field).value_or(when_absent);
}

std::string Fields::as_string(std::string_view field, const json::value& value, size_t max_bytes) const {
  const json::string* text = value.if_string();
  if (text == nullptr)
    refuse(field, "must be a string" + (source_.empty() ? "" : ", not " + shown_value(value)), kInvalidType);
  if (text->size() > max_bytes) {
    refuse(field,
           "has " + std::to_string(text->size()) + " bytes; at most " + std::to_string(max_bytes) +
               " are allowed",
           "string_too_long");
  }
  return std::string(*text);
}

std::optional<std::string> Fields::find_string(std::string_view field, size_t max_bytes) const {
  const json::value* value = find(field);
  if (value == nullptr) return std::nullopt;
  return as_string(field, *value, max_bytes);
}

std::string Fields::get_string(std::string_view field) const {
  return as_string(field, get(field), static_cast<size_t>(-1));
}

std::vector<int64_t> Fields::find_integers(std::string_view field) const {
  std::vector<int64_t> integers;
  const json::value* value = find(field);
  if (value == nullptr) return integers;
  if (!value->is_array()) refuse(field, "must be an array of integers", kInvalidType);
  integers.reserve(value->get_array().size());
  for (const json::value& item : value->get_array()) {
    if (has_fraction(item)) refuse(field, "must be an integer", kInvalidType);
    const std::optional<int64_t> integer = whole(item);
    if (!integer) refuse(field, "is not a 64-bit integer", kOutOfRange);
    integers.push_back(*integer);
  }
  return integers;
}

std::vector<std::string> Fields::find_strings(std::string_view field, size_t max_bytes) const {
  const json::value* value = find(field);
  if (value == nullptr) return {};
  if (value->is_string()) return {as_string(field, *value, max_bytes)};
  if (!value->is_array()) refuse(field, "must be a string or an array of strings", kInvalidType);
  std::vector<std::string> strings;
  strings.reserve(value->get_array().size());
  for (const json::value& item : value->get_array()) strings.push_back(as_string(field, item, max_bytes));
  return strings;
}

const json::array* Fields::find_array(std::string_view field) const {
  const json::value* value = find(field);
  if (value == nullptr) return nullptr;
  if (!value->is_array()) refuse(field, "must be an array, not " + shown_value(*value), kInvalidType);
  return &value->get_array();
}

const json::array& Fields::get_array(std::string_view field) const {
  get(field);
  return *find_array(field);
}

std::optional<Fields> Fields::find_object(std::string_view field) const {
  const json::value* value = find(field);
  if (value == nullptr) return std::nullopt;
  return inside(*value, std::string(field));
}

Fields Fields::get_object(std::string_view field) const {
  return inside(get(field), std::string(field));
}

Fields Fields::inside(const json::value& element, const std::string& where) const {
  if (!element.is_object()) refuse(where, "must be an object, not " + shown_value(element), kInvalidType);
  return Fields(element.get_object(), source_, prefix_ + where + ".");
}

void Fields::ignore(std::initializer_list<std::string_view> fields) const {
  for (const std::string_view field : fields) find(field);
}

std::vector<const boost::json::key_value_pair*> Fields::unasked() const {
  std::vector<const boost::json::key_value_pair*> members;
  for (size_t i = 0; i < was_asked_.size(); ++i) {
    if (!was_asked_[i]) members.push_back(object_->begin() + static_cast<std::ptrdiff_t>(i));
  }
  return members;
}

std::vector<std::string> Fields::unknown() const {
  std::vector<std::string> names;
  for (const boost::json::key_value_pair* member : unasked()) {
    const std::string_view name = member->key();
    names.push_back(prefix_ + std::string(name.substr(0, kMaxNameBytes)));
  }
  return names;
}

}  // namespace serval
