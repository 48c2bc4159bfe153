// A chat, from the service's values to what a template reads: roles checked, developer as system,
// functions as tools, tool calls the way this template takes them. Knows nothing of transports and tokens.
#pragma once

#include <boost/json/fwd.hpp>
#include <vector>

#include "server/service/chat.h"
#include "engine/text/template/chat_template.h"
#include "kernels/base/status.h"

namespace serval {

// How a template takes an assistant's message with tool calls. Clients send content null and the arguments as
// JSON in a string; published templates differ in both: some branch on content being none and some add it to
// a string, some write the arguments with tojson and some as they are.
struct ToolCallStyle {
  // Otherwise an empty text instead.
  bool null_content = false;
  // Otherwise the string that came.
  bool object_arguments = true;
};

// Renders a short chat in each style and takes the first whose result shows the call. A template that shows
// it in none (it knows no tool calls) gets the default.
ToolCallStyle find_tool_call_style(const ChatTemplate& chat_template);

// Errors name the message. Any thread.
Result<boost::json::array> template_messages(const std::vector<ChatMessage>& messages, int max_messages,
                                             const ToolCallStyle& style);

// As a template reads it.
boost::json::value template_value(const TemplateValue& value);
// Tools, documents; null when there are none.
boost::json::value template_list(const std::vector<JsonText>& objects);

}  // namespace serval
