// Reads typed fields out of a client's JSON object. Checks types only (ranges are the service's): the first
// field that has the wrong one is kept as the error, and everything read after it comes out as absent. null
// counts as absent.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/status.h"

namespace serval {

// Names, ids, salts: nothing that is stored or compared is longer. Texts (prompts, messages) are bounded by
// the body.
constexpr size_t kMaxShortStringBytes = 1024;

class FieldReader {
 public:
  // `prefix` names the object inside the request, for errors: "stream_options.".
  explicit FieldReader(const boost::json::object& object, std::string prefix = {})
      : object_(object), prefix_(std::move(prefix)) {}

  // The raw value; null and missing alike give nullptr.
  const boost::json::value* find(std::string_view name);

  std::optional<int64_t> integer(std::string_view name);
  std::optional<double> number(std::string_view name);
  std::optional<bool> boolean(std::string_view name);
  // At most kMaxShortStringBytes.
  std::optional<std::string> short_string(std::string_view name);
  // As short_string, without control bytes.
  std::optional<std::string> name(std::string_view name);
  std::optional<std::string> text(std::string_view name);
  std::vector<int64_t> integers(std::string_view name);
  // A short string, or an array of them.
  std::vector<std::string> short_strings(std::string_view name);

  // Fields that are accepted and have no meaning here.
  void ignore(std::initializer_list<std::string_view> names);
  // The first field nobody asked for, and how many there are.
  std::optional<std::string> unknown() const;
  int num_unknown() const;

  void fail(std::string_view name, const char* code, std::string message);
  void fail(Error error);
  bool failed() const { return failed_; }
  const Error& error() const { return error_; }

 private:
  std::optional<int64_t> as_integer(std::string_view name, const boost::json::value& value);
  std::optional<std::string> as_string(std::string_view name, const boost::json::value& value,
                                       size_t max_bytes);

  const boost::json::object& object_;
  const std::string prefix_;
  std::vector<std::string_view> asked_;
  Error error_;
  bool failed_ = false;
};

}  // namespace serval
