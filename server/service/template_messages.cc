#include "server/service/template_messages.h"

#include <algorithm>
#include <boost/json.hpp>
#include <string>
#include <string_view>

#include "engine/json/json_reader.h"
#include "kernels/base/check.h"

namespace serval {
namespace {

namespace json = boost::json;

constexpr size_t kMaxRoleBytes = 64;

bool is_role(std::string_view role) {
  return !role.empty() && role.size() <= kMaxRoleBytes &&
         std::all_of(role.begin(), role.end(), [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; });
}

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

// What an assistant thought has three names; templates read the first two, and the first that is there gives
// it.
void alias_reasoning(json::object& message) {
  for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
    const json::value* const found = message.if_contains(name);
    if (found == nullptr || found->is_null()) continue;
    const json::value reasoning = *found;
    message.emplace("thinking", reasoning);
    message["reasoning_content"] = reasoning;
    return;
  }
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

// What is no JSON, against its type, stays the text it is.
json::value template_value(const JsonText& value) {
  Result<json::value> parsed = read_json(value.text);
  return parsed ? std::move(*parsed) : json::value(value.text);
}

json::value template_value(const TemplateValue& value) {
  return std::visit(
      []<class T>(const T& held) {
        if constexpr (std::is_same_v<T, JsonText>) {
          return template_value(held);
        } else {
          return json::value(held);
        }
      },
      value);
}

json::value template_list(const std::vector<JsonText>& objects) {
  if (objects.empty()) return nullptr;
  json::array list;
  for (const JsonText& object : objects) list.push_back(template_value(object));
  return list;
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
    if (!is_role(message.role))
      return bad_messages(where + ".role must be 1 to 64 small letters and underscores.");
    const bool may_be_empty = message.role == "assistant" || message.role == "function";
    if (!message.content && !may_be_empty)
      return bad_messages(where + ".content is missing; only an assistant's or a function's may be null.");
    json::object out;
    for (const auto& [name, value] : message.fields) out[name] = template_value(value);
    alias_reasoning(out);
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
