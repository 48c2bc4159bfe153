// Values as text, the way Python prints them: str, repr, json.dumps, and the two formatting languages ("%s" %
// x and "{}".format(x)).
#pragma once

#include <string>
#include <string_view>

#include "engine/text/jinja/runtime.h"

namespace serval::jinja {

std::string int_text(Int n);
// Shortest digits that read back equal, with ".0" or an exponent as Python writes them.
std::string float_text(double x);

void append_str(TextBuilder& out, const Value& value);
void append_repr(TextBuilder& out, const Value& value);
std::string str_of(Runtime& runtime, const Value& value);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool multiline = false;
  std::string indent;  // of one level, when multiline
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
void append_json(TextBuilder& out, const Value& value, const JsonStyle& style);

// "%s and %d" % values: `values` is a tuple, a dict for %(name)s, or the one value.
std::string percent_format(Runtime& runtime, std::string_view format, const Value& values);
// "{} {0} {name!r:>8}".format(...). Fields name arguments, and their items and attributes by the rules of
// operators.h.
std::string brace_format(Runtime& runtime, std::string_view format, const CallArgs& args);

}  // namespace serval::jinja
