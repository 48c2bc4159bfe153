// A chat's messages, from what a client sent to what a template reads: checked, developer as system, parts of
// text as one text, a refusal as the content it stood for, functions as tools, tool calls the way this
// template takes them. Knows nothing of tokens.
#pragma once

#include <boost/json/fwd.hpp>
#include <string>

#include "engine/text/template/chat_template.h"
#include "kernels/base/status.h"

namespace serval {

// How a template takes an assistant's message with tool calls. Clients send content null and the arguments as
// JSON in a string; published templates differ in both: some branch on content being none and some add it to
// a string, some write the arguments with tojson and some as they are.
struct ToolCallStyle {
  bool null_content = false;     // false: an empty text instead
  bool object_arguments = true;  // false: the string that came
};

// Renders a short chat in each style and takes the first whose result shows the call. A template that shows
// it in none (it knows no tool calls) gets the default.
ToolCallStyle find_tool_call_style(const ChatTemplate& chat_template);

// The `messages` of a request. Errors name the place. Any thread.
Result<boost::json::array> normalise_messages(const boost::json::value* messages, int max_messages,
                                              const ToolCallStyle& style);

}  // namespace serval
