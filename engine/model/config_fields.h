// A JSON object of a model folder, asked field by field. Private to engine/model.
#pragma once

#include <boost/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace serval {

inline constexpr size_t kMaxConfigBytes = size_t{4} << 20;
// A limit far above any published vocabulary and far below where a product with it leaves 63 bits.
inline constexpr int kMaxVocab = 1 << 22;

// A value as the file has it, for a sentence.
std::string shown_value(const boost::json::value& value);

// JSON null is the same as absent. Every complaint is a std::runtime_error that names the file and the field.
class Fields {
 public:
  // Views `object`. `prefix`: of the fields' names, for an object inside another.
  Fields(const boost::json::object& object, std::string file, std::string prefix = {})
      : object_(&object), file_(std::move(file)), prefix_(std::move(prefix)) {}

  [[noreturn]] void refuse(std::string_view field, const std::string& why) const;

  const boost::json::value* find(std::string_view field) const;  // null when absent
  std::optional<int> find_int(std::string_view field, int low, int high) const;
  int get_int(std::string_view field, int low, int high) const;
  // Of any size; infinite when the file's number is beyond a double.
  std::optional<double> find_any_number(std::string_view field) const;
  std::optional<double> find_number(std::string_view field, double low, double high) const;
  std::optional<double> find_positive(std::string_view field, double high) const;
  bool get_bool(std::string_view field, bool when_absent) const;
  std::optional<std::string> find_string(std::string_view field) const;
  std::optional<Fields> find_object(std::string_view field) const;

  const std::string& file() const { return file_; }

 private:
  const boost::json::object* object_;
  std::string file_;
  std::string prefix_;
};

}  // namespace serval
