// The methods that texts, lists and dictionaries have in Python, as far as the immutable sandbox lets
// templates call them.
#pragma once

#include <span>
#include <string_view>

#include "engine/text/jinja/runtime.h"

namespace serval::jinja {

// receiver.name as a callable value; Undefined when the type has no such method, or one that would change the
// receiver.
Value bind_method(const Value& receiver, std::string_view name);

// str.split and str.rsplit, for the filters that need them too. No separator: runs of white space. max_splits
// < 0: no limit.
std::vector<std::string_view> split_on(std::string_view text, std::string_view separator, int64_t max_splits);
std::vector<std::string_view> split_spaces(std::string_view text, int64_t max_splits);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);
std::string replace_all(Runtime& runtime, std::string_view text, std::string_view from, std::string_view to,
                        int64_t max_count);

// The parameters of a builtin, from what a call passed: by place or by name, absent ones nullptr. Fails for
// too many or unknown names.
class Parameters {
 public:
  Parameters(std::string_view function, const CallArgs& args, std::initializer_list<std::string_view> names);

  const Value* operator[](size_t i) const { return values_[i]; }
  const Value& required(size_t i) const;
  bool flag(size_t i, bool fallback) const;
  Int integer(size_t i, Int fallback) const;
  std::string_view text(size_t i) const;  // required, and a text
  // None counts as absent.
  const Value* present(size_t i) const { return values_[i] && !values_[i]->is_none() ? values_[i] : nullptr; }

 private:
  std::string_view function_;
  std::vector<const Value*> values_;
};

}  // namespace serval::jinja
