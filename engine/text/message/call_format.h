// What calls of given tools look like in the words of a family, for output that is held to it: as structural tags (engine/grammar/structural_tag.h).
#pragma once

#include <boost/json/object.hpp>
#include <optional>
#include <string>
#include <vector>

#include "engine/text/message/message_format.h"

namespace serval {

// A function that may be called.
struct CallableTool {
  std::string name;
  // Of its arguments, an object's.
  boost::json::object parameters;
  // Its arguments are held to them; else to being arguments.
  bool is_strict = false;
};

// What clients send, {"type": "function", "function": {…}}; `parameters` that are none are any object. References in them are found from where they
// were written.
std::vector<CallableTool> callable_tools(const std::vector<std::string>& tools);

// One call as this family has it in JSON, whatever is strict: a schema.
boost::json::value call_schema(const MessageFormat& format, const std::vector<CallableTool>& tools);

// An answer in which every call is one of these; only_one: and its end.
boost::json::object answer_with_calls(const MessageFormat& format, const std::vector<CallableTool>& tools, bool only_one = false);

// One call that must come: what it begins with, and how it goes on.
struct ForcedCall {
  std::string begun;
  boost::json::object rest;
};
// Of families that have no calls in JSON (json_call_mark); nothing for the others.
std::optional<ForcedCall> forced_call(const MessageFormat& format, const std::vector<CallableTool>& tools);

}  // namespace serval
