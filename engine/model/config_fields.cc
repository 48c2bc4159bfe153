#include "engine/model/config_fields.h"

#include <cmath>
#include <sstream>
#include <stdexcept>

#include "kernels/base/shown.h"

namespace serval {

namespace json = boost::json;

std::string shown_value(const json::value& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  return shown(json::serialize(value));
}

void Fields::refuse(std::string_view field, const std::string& why) const {
  throw std::runtime_error(file_ + ": " + prefix_ + std::string(field) + " " + why);
}

const json::value* Fields::find(std::string_view field) const {
  const json::value* value = object_->if_contains(field);
  return value == nullptr || value->is_null() ? nullptr : value;
}

std::optional<int> Fields::find_int(std::string_view field, int low, int high) const {
  const json::value* value = find(field);
  if (value == nullptr) return std::nullopt;
  if (value->is_int64() && value->get_int64() >= low && value->get_int64() <= high) {
    return static_cast<int>(value->get_int64());
  }
  refuse(field, "must be an integer from " + std::to_string(low) + " to " + std::to_string(high) + ", not " +
                    shown_value(*value));
}

int Fields::get_int(std::string_view field, int low, int high) const {
  const std::optional<int> value = find_int(field, low, high);
  if (!value) refuse(field, "is missing");
  return *value;
}

std::optional<double> Fields::find_any_number(std::string_view field) const {
  const json::value* value = find(field);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) refuse(field, "must be a number, not " + shown_value(*value));
  return value->to_number<double>();
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

bool Fields::get_bool(std::string_view field, bool when_absent) const {
  const json::value* value = find(field);
  if (value == nullptr) return when_absent;
  if (!value->is_bool()) refuse(field, "must be true or false, not " + shown_value(*value));
  return value->get_bool();
}

std::optional<std::string> Fields::find_string(std::string_view field) const {
  const json::value* value = find(field);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) refuse(field, "must be a string, not " + shown_value(*value));
  return std::string(value->get_string());
}

std::optional<Fields> Fields::find_object(std::string_view field) const {
  const json::value* value = find(field);
  if (value == nullptr) return std::nullopt;
  if (!value->is_object()) refuse(field, "must be an object, not " + shown_value(*value));
  return Fields(value->get_object(), file_, prefix_ + std::string(field) + ".");
}

}  // namespace serval
