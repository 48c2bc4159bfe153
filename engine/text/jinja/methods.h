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

struct NamedMethod {
  std::string_view name;
  Value (*call)(Runtime&, const Value& self, const CallArgs&);
};
std::span<const NamedMethod> text_methods();

}  // namespace serval::jinja
