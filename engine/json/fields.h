// A JSON object asked field by field: of a client's request, of a model folder's files. Checks types, and
// ranges where they are given. It remembers what was asked, so that what nobody asked for can be listed.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/status.h"

namespace serval {

// What is wrong with a field: a sentence for whoever starts a server with that file, an Error (code, field) for
// whoever sent it.
class FieldError : public std::runtime_error {
 public:
  // The sentence is `source`, if there is one, and `error`'s without a full stop.
  FieldError(const std::string& source, Error error);

  // Its message ends in a full stop.
  const Error& error() const { return error_; }

 private:
  Error error_;
};

// A value as the text has it, for a sentence.
std::string shown_value(const boost::json::value& value);

// JSON null is the same as absent. Every complaint is a FieldError that names the field, and the source if it
// has one. find_ gives nothing for what is absent, get_ refuses that ("is missing"). A number without a fraction
// is an integer however it is spelled (2.0, 1e3), as JSON Schema has it.
class Fields {
 public:
  // Views `object`, which outlives it. `source`: the file it is from; empty: a request. `prefix`: of the fields'
  // names, for an object inside another ("rope_scaling.").
  explicit Fields(const boost::json::object& object, std::string source = {}, std::string prefix = {});
  Fields(Fields&&) = default;
  Fields& operator=(Fields&&) = default;

  // `why` goes on after the field's name and has no full stop.
  [[noreturn]] void refuse(std::string_view field, const std::string& why,
                           const char* code = "invalid_value") const;

  // Null when absent.
  const boost::json::value* find(std::string_view field) const;
  const boost::json::value& get(std::string_view field) const;

  std::optional<int64_t> find_integer(std::string_view field) const;
  std::optional<int> find_int(std::string_view field, int low, int high) const;
  int get_int(std::string_view field, int low, int high) const;
  // Of any size; infinite when the text's number is beyond a double.
  std::optional<double> find_any_number(std::string_view field) const;
  // Not infinite; a negative zero comes out as zero.
  std::optional<double> find_finite(std::string_view field) const;
  std::optional<double> find_number(std::string_view field, double low, double high) const;
  std::optional<double> find_positive(std::string_view field, double high) const;
  std::optional<bool> find_bool(std::string_view field) const;
  bool get_bool(std::string_view field, bool when_absent) const;
  std::optional<std::string> find_string(std::string_view field,
                                         size_t max_bytes = static_cast<size_t>(-1)) const;
  std::string get_string(std::string_view field) const;
  // Empty when absent.
  std::vector<int64_t> find_integers(std::string_view field) const;
  // A string, or an array of them; each of at most max_bytes.
  std::vector<std::string> find_strings(std::string_view field, size_t max_bytes) const;
  // Null when absent.
  const boost::json::array* find_array(std::string_view field) const;
  const boost::json::array& get_array(std::string_view field) const;
  // The inner object's fields are named "field.inner".
  std::optional<Fields> find_object(std::string_view field) const;
  Fields get_object(std::string_view field) const;
  // An element of one of the arrays, which must be an object; its fields are named "where.inner".
  Fields inside(const boost::json::value& element, const std::string& where) const;

  // Fields that are accepted and have no meaning here.
  void ignore(std::initializer_list<std::string_view> fields) const;
  // What nobody asked for, in the text's order: the members, and their names with the prefix.
  std::vector<const boost::json::key_value_pair*> unasked() const;
  std::vector<std::string> unknown() const;

  // What was asked of it is not remembered.
  const boost::json::object& object() const { return *object_; }
  // "" for a request.
  const std::string& file() const { return source_; }

 private:
  std::string as_string(std::string_view field, const boost::json::value& value, size_t max_bytes) const;

  const boost::json::object* object_;
  std::string source_;
  std::string prefix_;
  // By member.
  mutable std::vector<bool> was_asked_;
};

}  // namespace serval
