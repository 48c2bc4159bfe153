// Appends JSON to a string, member by member, without building a tree: one answer or one stream event is one
// pass. Whatever it is given, the result is valid JSON in valid UTF-8 on one line.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace serval {

class JsonWriter {
 public:
  explicit JsonWriter(std::string& out) : out_(out) {}

  JsonWriter& begin_object();
  JsonWriter& end_object();
  JsonWriter& begin_array();
  JsonWriter& end_array();
  JsonWriter& key(std::string_view name);

  JsonWriter& string(std::string_view text);  // invalid UTF-8 becomes U+FFFD
  // The same in parts, each of whole characters: begin_string(), string_part()..., end_string().
  JsonWriter& begin_string();
  JsonWriter& string_part(std::string_view text);
  JsonWriter& end_string();
  JsonWriter& integer(int64_t value);
  // Shortest digits that read back the same; infinities and NaN are clamped to +-9999.
  JsonWriter& number(float value);
  JsonWriter& boolean(bool value);
  JsonWriter& null();
  // A value that is JSON already, on one line.
  JsonWriter& raw(std::string_view json);

  // key + value.
  JsonWriter& member(std::string_view name, std::string_view text) { return key(name).string(text); }
  JsonWriter& member(std::string_view name, int64_t value) { return key(name).integer(value); }

 private:
  void separate();

  std::string& out_;
  bool first_ = true;  // no comma before the next value or key
};

}  // namespace serval
