#include "server/service/template_messages.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <string>
#include <string_view>

#include "engine/json/json_reader.h"
#include "kernels/base/check.h"

namespace serval {
namespace {

namespace json = boost::json;

constexpr std::array kRoles = {"system", "developer", "user", "assistant", "tool", "function"};

Error bad_messages(std::string message) {
  return invalid("messages", "invalid_messages", std::move(message));
}

std::string_view role_in_templates(std::string_view role) {
  if (role == "developer") return "system";
  return role == "function" ? "tool" : role;
}

// Arguments that are no JSON object stay the string they are: a model wrote them, and the client only repeats
// them.
json::value arguments_of(const ToolCall& call, const ToolCallStyle& style) {
  if (style.object_arguments) {
    if (Result<json::object> parsed = read_json_object(call.arguments)) return std::move(*parsed);
  }
  return json::string(call.arguments);
}

}  // namespace

ToolCallStyle find_tool_call_style(const ChatTemplate& chat_template) {
  std::vector<ChatMessage> chat(2);
  chat[0] = {.role = "user", .content = "Hello"};
  chat[1] = {.role = "assistant",
             .tool_calls = {{"call00000", "serval_probe", R"({"key": "serval_value"})"}}};
  for (const ToolCallStyle style :
       {ToolCallStyle{true, true}, {false, true}, {true, false}, {false, false}}) {
    Result<json::array> messages = template_messages(chat, 2, style);
    SERVAL_CHECK(messages.ok());
    const json::object context = {
        {"messages", std::move(*messages)}, {"tools", nullptr}, {"documents", nullptr},
        {"add_generation_prompt", false},   {"bos_token", ""},  {"eos_token", ""}};
    const Result<std::string> text = chat_template.render(context, /*now_unix_s=*/0);
    const auto shows = [&](const char* words) { return text->find(words) != std::string::npos; };
    // Python's way to print null, or a text inside a dictionary, is not what a model was taught.
    if (text.ok() && shows("serval_probe") && shows("serval_value") && !shows("None") &&
        !shows("'serval_value'"))
      return style;
  }
  return {};
}

json::value template_value(const TemplateValue& value) {
  return std::visit([](const auto& held) { return json::value(held); }, value);
}

Result<json::array> template_messages(const std::vector<ChatMessage>& messages, int max_messages,
                                      const ToolCallStyle& style) {
  if (messages.empty() || messages.size() > static_cast<size_t>(max_messages)) {
    return bad_messages("messages has " + std::to_string(messages.size()) + " items; it must have 1 to " +
                        std::to_string(max_messages) + ".");
  }
  json::array result;
  result.reserve(messages.size());
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    const std::string where = "messages[" + std::to_string(i) + "]";
    if (std::find(kRoles.begin(), kRoles.end(), message.role) == kRoles.end()) {
      return bad_messages(where + ".role is not one of system, developer, user, assistant, tool, function.");
    }
    const bool may_be_empty = message.role == "assistant" || message.role == "function";
    if (!message.content && !may_be_empty)
      return bad_messages(where + ".content is missing; only an assistant's or a function's may be null.");
    json::object out;
    for (const auto& [name, value] : message.fields) out[name] = template_value(value);
    out["role"] = role_in_templates(message.role);
    if (message.content) {
      out["content"] = *message.content;
    } else if (!message.tool_calls.empty() && style.null_content) {
      out["content"] = nullptr;
    } else {
      out["content"] = "";
    }
    if (!message.tool_calls.empty()) {
      json::array calls;
      for (const ToolCall& call : message.tool_calls) {
        calls.push_back({{"id", call.id},
                         {"type", "function"},
                         {"function", {{"name", call.name}, {"arguments", arguments_of(call, style)}}}});
      }
      out["tool_calls"] = std::move(calls);
    }
    result.push_back(std::move(out));
  }
  return result;
}

}  // namespace serval
