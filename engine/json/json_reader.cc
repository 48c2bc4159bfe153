#include "engine/json/json_reader.h"

#include <boost/json/basic_parser_impl.hpp>
#include <boost/json/monotonic_resource.hpp>
#include <boost/json/value.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/base/regular_file.h"

namespace serval {
namespace {

namespace json = boost::json;

// Builds the tree from the parser's events. `values_` holds what is read and has no container yet, `keys_` the
// keys of those that will be members: a container that ends takes its own from the end, in one allocation.
class TreeBuilder {
 public:
  static constexpr size_t max_object_size = static_cast<size_t>(-1);
  static constexpr size_t max_array_size = static_cast<size_t>(-1);
  static constexpr size_t max_key_size = static_cast<size_t>(-1);
  static constexpr size_t max_string_size = static_cast<size_t>(-1);

  using error = boost::system::error_code;

  explicit TreeBuilder(const JsonLimits& limits)
      : limits_(limits), arena_(json::make_shared_resource<json::monotonic_resource>()) {}

  json::value take_root() { return std::move(values_.back()); }
  bool is_too_large() const { return is_too_large_; }
  bool has_duplicate() const { return has_duplicate_; }
  const std::string& duplicate() const { return duplicate_; }

  bool on_document_begin(error&) { return true; }
  bool on_document_end(error&) { return true; }
  bool on_object_begin(error&) { return true; }
  bool on_object_end(size_t size, error& ec) {
    json::object object(arena_);
    object.reserve(size);
    const size_t first_key = keys_.size() - size, first_value = values_.size() - size;
    for (size_t i = 0; i < size; ++i) {
      json::value& value = values_[first_value + i];
      const auto [member, is_new] = object.emplace(keys_[first_key + i], std::move(value));
      if (is_new) continue;
      if (!limits_.last_key_counts) {
        has_duplicate_ = true;
        duplicate_ = std::move(keys_[first_key + i]);
        return stop(ec);
      }
      member->value() = std::move(value);
    }
    keys_.resize(first_key);
    values_.resize(first_value);
    return add(std::move(object), ec);
  }
  bool on_array_begin(error&) { return true; }
  bool on_array_end(size_t size, error& ec) {
    json::array array(arena_);
    array.reserve(size);
    const auto first = values_.end() - static_cast<std::ptrdiff_t>(size);
    for (auto value = first; value != values_.end(); ++value) array.push_back(std::move(*value));
    values_.erase(first, values_.end());
    return add(std::move(array), ec);
  }

  bool on_key_part(json::string_view part, size_t, error&) { return add_text(part); }
  bool on_key(json::string_view part, size_t, error&) {
    add_text(part);
    keys_.push_back(text_);
    text_.clear();
    return true;
  }
  bool on_string_part(json::string_view part, size_t, error&) { return add_text(part); }
  bool on_string(json::string_view part, size_t, error& ec) {
    add_text(part);
    const bool fits = add(json::string(text_, arena_), ec);
    text_.clear();
    return fits;
  }
  bool on_number_part(json::string_view, error&) { return true; }
  bool on_int64(int64_t value, json::string_view digits, error& ec) {
    if (value == 0 && !digits.empty() && digits[0] == '-') return add(-0.0, ec);
    return add(value, ec);
  }
  bool on_uint64(uint64_t value, json::string_view, error& ec) { return add(value, ec); }
  bool on_double(double value, json::string_view, error& ec) { return add(value, ec); }
  bool on_bool(bool value, error& ec) { return add(value, ec); }
  bool on_null(error& ec) { return add(nullptr, ec); }
  bool on_comment_part(json::string_view, error&) { return true; }
  bool on_comment(json::string_view, error&) { return true; }

 private:
  static bool stop(error& ec) {
    ec = json::error::syntax;
    return false;
  }

  bool add_text(json::string_view part) {
    text_.append(part.data(), part.size());
    return true;
  }

  template <class T>
  bool add(T&& value, error& ec) {
    if (++num_values_ > limits_.max_values) {
      is_too_large_ = true;
      return stop(ec);
    }
    values_.emplace_back(std::forward<T>(value), arena_);
    return true;
  }

  const JsonLimits limits_;
  const json::storage_ptr arena_;
  size_t num_values_ = 0;
  bool is_too_large_ = false;
  bool has_duplicate_ = false;
  std::string duplicate_;
  std::vector<json::value> values_;
  std::vector<std::string> keys_;
  // Of a key or string that came in parts.
  std::string text_;
};

// Of a key that an error names: the answer does not grow with the request.
constexpr size_t kMaxNamedKeyBytes = 64;

constexpr size_t kFreeFileValues = 1'000'000;
constexpr size_t kFileBytesPerValue = 20;

// Python writes an infinite number as a name, which JSON has none for. Outside of strings it becomes a number too large
// for a double, which is read as infinite.
std::string with_numbers_for_infinity(std::string_view text) {
  constexpr std::string_view kName = "Infinity";
  std::string result;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (in_string && text[i] == '\\' && i + 1 < text.size()) {
      result.append(text.substr(i++, 2));
      continue;
    }
    in_string ^= text[i] == '"';
    if (!in_string && text.substr(i).starts_with(kName)) {
      result += "1e999";
      i += kName.size() - 1;
    } else {
      result += text[i];
    }
  }
  return result;
}

json::object object_or_throw(std::string_view text, const JsonLimits& limits, std::string_view what) {
  Result<json::object> object = read_json_object(text, limits, what);
  if (object) return std::move(*object);
  std::string sentence = object.error().message;
  sentence.pop_back();  // its full stop
  throw std::runtime_error(sentence);
}

}  // namespace

JsonLimits file_limits(size_t num_bytes) {
  return {.max_values = kFreeFileValues + num_bytes / kFileBytesPerValue, .last_key_counts = true};
}

Result<json::value> read_json(std::string_view text, const JsonLimits& limits, std::string_view what) {
  json::parse_options options;
  options.max_depth = limits.max_depth;
  json::basic_parser<TreeBuilder> parser(options, limits);
  boost::system::error_code error;
  const size_t used = parser.write_some(false, text.data(), text.size(), error);
  const TreeBuilder& built = parser.handler();
  const auto refused = [&](const char* code, const std::string& rest) {
    return invalid("", code, std::string(what) + rest);
  };
  if (built.has_duplicate()) {
    const std::string key = built.duplicate().substr(0, kMaxNamedKeyBytes);
    Error twice = refused("duplicate_key", " has the key \"" + key + "\" twice in one object.");
    twice.param = key;
    return twice;
  }
  if (built.is_too_large())
    return refused("json_too_large", " has more values than the " + std::to_string(limits.max_values) +
                                         " allowed, out of proportion to its size.");
  if (error == json::error::too_deep) {
    return refused("json_too_deep",
                   " is not valid JSON: it nests deeper than " +
                                        std::to_string(limits.max_depth) + " levels.");
  }
  if (error || used != text.size() || !parser.done()) {
    return refused("invalid_json", " is not valid JSON (at byte " + std::to_string(used) + ").");
  }
  return parser.handler().take_root();
}

Result<json::object> read_json_object(std::string_view text, const JsonLimits& limits,
                                      std::string_view what) {
  Result<json::value> root = read_json(text, limits, what);
  if (!root) return root.error();
  if (!root->is_object()) return invalid("", "invalid_type", std::string(what) + " must hold a JSON object.");
  return std::move(root->get_object());
}

json::object parse_json_file(std::string_view text, std::string_view what, size_t max_bytes) {
  if (text.size() > max_bytes) {
    throw std::runtime_error(std::string(what) + " has " + std::to_string(text.size()) + " bytes; at most " +
                             std::to_string(max_bytes) + " are supported");
  }
  if (text.find("Infinity") == text.npos) return object_or_throw(text, file_limits(text.size()), what);
  return object_or_throw(with_numbers_for_infinity(text), file_limits(text.size()), what);
}

json::object read_json_file(const std::filesystem::path& path, size_t max_bytes) {
  return parse_json_file(read_regular_file(path, max_bytes), path.string(), max_bytes);
}

json::object read_own_json_file(const std::filesystem::path& path) {
  return object_or_throw(read_regular_file(path, static_cast<size_t>(-1)), kOwnJson, path.string());
}

}  // namespace serval
