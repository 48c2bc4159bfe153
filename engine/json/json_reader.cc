#include "engine/json/json_reader.h"

#include <boost/json/basic_parser_impl.hpp>
#include <boost/json/value.hpp>
#include <string>
#include <vector>

namespace serval {
namespace {

namespace json = boost::json;

// Builds the tree from the parser's events. `stack_` holds the containers still open and `keys_` the key each
// was opened under.
class TreeBuilder {
 public:
  static constexpr size_t max_object_size = static_cast<size_t>(-1);
  static constexpr size_t max_array_size = static_cast<size_t>(-1);
  static constexpr size_t max_key_size = static_cast<size_t>(-1);
  static constexpr size_t max_string_size = static_cast<size_t>(-1);

  using error = boost::system::error_code;

  explicit TreeBuilder(size_t max_values) : max_values_(max_values) {}

  json::value& root() { return root_; }
  bool too_large() const { return too_large_; }
  bool has_duplicate() const { return has_duplicate_; }
  const std::string& duplicate() const { return key_; }

  bool on_document_begin(error&) { return true; }
  bool on_document_end(error&) { return true; }
  bool on_object_begin(error&) { return open(json::object()); }
  bool on_object_end(size_t, error& ec) { return close(ec); }
  bool on_array_begin(error&) { return open(json::array()); }
  bool on_array_end(size_t, error& ec) { return close(ec); }

  bool on_key_part(json::string_view part, size_t, error&) {
    text_.append(part.data(), part.size());
    return true;
  }
  bool on_key(json::string_view part, size_t, error& ec) {
    text_.append(part.data(), part.size());
    key_.swap(text_);
    text_.clear();
    if (!stack_.back().get_object().contains(key_)) return true;
    has_duplicate_ = true;
    return stop(ec);
  }
  bool on_string_part(json::string_view part, size_t, error&) {
    text_.append(part.data(), part.size());
    return true;
  }
  bool on_string(json::string_view part, size_t, error& ec) {
    text_.append(part.data(), part.size());
    const bool fits = add(json::string(text_), ec);
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

  bool open(json::value container) {
    keys_.push_back(std::move(key_));
    key_.clear();
    stack_.push_back(std::move(container));
    return true;
  }

  bool close(error& ec) {
    json::value done = std::move(stack_.back());
    stack_.pop_back();
    key_ = std::move(keys_.back());
    keys_.pop_back();
    return add(std::move(done), ec);
  }

  bool add(json::value value, error& ec) {
    if (++num_values_ > max_values_) {
      too_large_ = true;
      return stop(ec);
    }
    if (stack_.empty()) {
      root_ = std::move(value);
    } else if (json::object* object = stack_.back().if_object()) {
      object->emplace(key_, std::move(value));
    } else {
      stack_.back().get_array().push_back(std::move(value));
    }
    return true;
  }

  const size_t max_values_;
  size_t num_values_ = 0;
  bool too_large_ = false;
  bool has_duplicate_ = false;
  json::value root_;
  std::vector<json::value> stack_;
  std::vector<std::string> keys_;
  std::string key_;   // of the value that comes next, in the innermost object
  std::string text_;  // of a key or string that came in parts
};

// Of a key that an error names: the answer does not grow with the request.
constexpr size_t kMaxNamedKeyBytes = 64;

Error refused(const char* code, std::string message) {
  return invalid("", code, std::move(message));
}

}  // namespace

Result<std::shared_ptr<const json::object>> read_json_object(std::string_view text,
                                                             const JsonLimits& limits) {
  json::parse_options options;
  options.max_depth = limits.max_depth;
  json::basic_parser<TreeBuilder> parser(options, limits.max_values);
  boost::system::error_code error;
  const size_t used = parser.write_some(false, text.data(), text.size(), error);
  const TreeBuilder& built = parser.handler();
  if (built.has_duplicate()) {
    const std::string key = built.duplicate().substr(0, kMaxNamedKeyBytes);
    return invalid(key, "duplicate_key", "The body has the key \"" + key + "\" twice in one object.");
  }
  if (built.too_large())
    return refused("json_too_large",
                   "The body has more than " + std::to_string(limits.max_values) + " values.");
  if (error == json::error::too_deep) {
    return refused("json_too_deep",
                   "The body nests deeper than " + std::to_string(limits.max_depth) + " levels.");
  }
  if (error || used != text.size() || !parser.done()) {
    return refused("invalid_json", "The body is not valid JSON (at byte " + std::to_string(used) + ").");
  }
  json::value& root = parser.handler().root();
  if (!root.is_object()) return refused("invalid_type", "The body must be a JSON object.");
  return std::shared_ptr<const json::object>(std::make_shared<json::object>(std::move(root.get_object())));
}

}  // namespace serval
