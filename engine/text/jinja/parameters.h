// The parameters of a builtin function, filter or method.
#pragma once

#include <initializer_list>
#include <string_view>
#include <vector>

#include "engine/text/jinja/value.h"

namespace serval::jinja {

// What a call passed, by place or by name; absent ones are nullptr. Fails for too many or unknown names.
// Holds pointers into `args`.
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
