// The names a template may use without defining them: filters, tests and global functions, as Jinja and
// transformers have them.
#pragma once

#include <functional>
#include <string_view>

#include "engine/text/jinja/runtime.h"

namespace serval::jinja {

// value | name(args), value is name(args). Fail for an unknown name.
Value apply_filter(Runtime& runtime, std::string_view name, const Value& value, const CallArgs& args);
bool apply_test(Runtime& runtime, std::string_view name, const Value& value, const CallArgs& args);
bool has_filter(std::string_view name);
bool has_test(std::string_view name);

// range, dict, raise_exception, strftime_now, cycler, joiner; Undefined for any other name. `namespace` is
// the interpreter's: it alone can own what changes.
Value global_function(std::string_view name);

// ---- between the files that implement them
using Filter = Value (*)(Runtime&, const Value&, const CallArgs&);
Filter find_text_filter(std::string_view name);
Filter find_sequence_filter(std::string_view name);

// item.attribute for a filter's attribute argument: a dotted path or an index; no attribute gives the item
// itself.
class AttributePath {
 public:
  AttributePath(Runtime& runtime, const Value* attribute);
  Value of(Runtime& runtime, const Value& item, const Value* fallback = nullptr) const;

 private:
  std::vector<Value> parts_;
};

}  // namespace serval::jinja
