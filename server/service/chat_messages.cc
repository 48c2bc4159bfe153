#include "server/service/chat_messages.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <string_view>

#include "engine/json/json_reader.h"
#include "kernels/base/check.h"

namespace serval {
namespace {

namespace json = boost::json;

Error bad_messages(std::string message) {
  return invalid("messages", "invalid_messages", std::move(message));
}

// What the schema has and a text model cannot read.
constexpr std::array kUnservedParts = {"image_url", "input_audio", "file", "video_url", "audio_url"};

// The text of one part of a message's content. `where`: the part, for errors.
Result<std::string_view> text_of_part(const json::value& part, bool from_assistant,
                                      const std::string& where) {
  const json::object* const object = part.if_object();
  const json::value* const type = object ? object->if_contains("type") : nullptr;
  if (!type || !type->is_string()) return bad_messages(where + " must be an object with a string in type.");
  const std::string_view name = type->get_string();
  if (std::find(kUnservedParts.begin(), kUnservedParts.end(), name) != kUnservedParts.end()) {
    return invalid("messages", "not_supported",
                   where + " is of type \"" + std::string(name) + "\"; this server takes text only.");
  }
  if (name != "text" && !(from_assistant && name == "refusal")) {
    return bad_messages(where + ".type must be \"text\"" +
                        (from_assistant      ? " or \"refusal\""
                         : name == "refusal" ? "; only an assistant's may be \"refusal\""
                                             : "") +
                        ".");
  }
  const json::value* const text = object->if_contains(name);
  if (!text || !text->is_string())
    return bad_messages(where + "." + std::string(name) + " must be a string.");
  return std::string_view(text->get_string());
}

// Templates are written for text content; an array of parts becomes its texts, a line each.
Result<json::value> flat_content(const json::value& content, bool from_assistant, const std::string& where) {
  if (content.is_string()) return content;
  if (!content.is_array()) return bad_messages(where + " must be a string, null or an array of parts.");
  std::string text;
  for (size_t i = 0; i < content.get_array().size(); ++i) {
    const Result<std::string_view> piece =
        text_of_part(content.get_array()[i], from_assistant, where + "[" + std::to_string(i) + "]");
    if (!piece) return piece.error();
    if (!text.empty()) text += '\n';
    text += *piece;
  }
  return json::value(json::string(text));
}

// Null counts as absent.
const json::value* given_value(const json::object& message, std::string_view name) {
  const json::value* value = message.if_contains(name);
  return value && !value->is_null() ? value : nullptr;
}

bool has_tool_calls(const json::object& message) {
  const json::value* calls = message.if_contains("tool_calls");
  return calls && calls->is_array() && !calls->get_array().empty();
}

// The older way to call a tool, a message each, becomes the newer one: templates know no other.
void renew_function_call(json::object& message) {
  const json::value* const call = given_value(message, "function_call");
  if (call && !has_tool_calls(message))
    message["tool_calls"] = json::array{{{"type", "function"}, {"function", *call}}};
  message.erase("function_call");
}

// Arguments that are no JSON object stay the string they are: a model wrote them, and the client only repeats
// them.
void parse_arguments(json::array& calls) {
  for (json::value& call : calls) {
    json::object* const object = call.if_object();
    json::value* const function = object ? object->if_contains("function") : nullptr;
    json::object* const fields = function ? function->if_object() : nullptr;
    json::value* const arguments = fields ? fields->if_contains("arguments") : nullptr;
    if (!arguments || !arguments->is_string()) continue;
    auto parsed = read_json_object(std::string_view(arguments->get_string()));
    if (parsed) *arguments = std::move(*parsed);
  }
}

}  // namespace

ToolCallStyle find_tool_call_style(const ChatTemplate& chat_template) {
  for (const ToolCallStyle style :
       {ToolCallStyle{true, true}, {false, true}, {true, false}, {false, false}}) {
    const json::value chat = {
        {{"role", "user"}, {"content", "Hello"}},
        {{"role", "assistant"},
         {"content", nullptr},
         {"tool_calls",
          json::array{
              {{"id", "call00000"},
               {"type", "function"},
               {"function", {{"name", "serval_probe"}, {"arguments", R"({"key": "serval_value"})"}}}}}}}};
    Result<json::array> messages = normalise_messages(&chat, 2, style);
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

Result<json::array> normalise_messages(const json::value* messages, int max_messages,
                                       const ToolCallStyle& style) {
  if (!messages || !messages->is_array()) return bad_messages("messages must be an array.");
  const json::array& given = messages->get_array();
  if (given.empty() || given.size() > static_cast<size_t>(max_messages)) {
    return bad_messages("messages has " + std::to_string(given.size()) + " items; it must have 1 to " +
                        std::to_string(max_messages) + ".");
  }
  json::array result;
  for (size_t i = 0; i < given.size(); ++i) {
    const std::string where = "messages[" + std::to_string(i) + "]";
    const json::object* message = given[i].if_object();
    const json::value* role = message ? message->if_contains("role") : nullptr;
    if (!role || !role->is_string()) return bad_messages(where + " must be an object with a string in role.");
    const std::string_view name = role->get_string();
    constexpr std::array kRoles = {"system", "developer", "user", "assistant", "tool", "function"};
    if (std::find(kRoles.begin(), kRoles.end(), name) == kRoles.end()) {
      return bad_messages(where + ".role is not one of system, developer, user, assistant, tool, function.");
    }
    json::object copy = *message;
    if (name == "developer") copy["role"] = "system";
    if (name == "function") copy["role"] = "tool";
    if (name == "assistant") renew_function_call(copy);
    const bool from_assistant = name == "assistant";
    const json::value* content = given_value(*message, "content");
    if (from_assistant && given_value(*message, "audio")) {
      return invalid("messages", "not_supported",
                     where + ".audio refers to an answer in sound; this server takes text only.");
    }
    // An assistant that refused said that instead of a content.
    if (from_assistant && !content) content = given_value(*message, "refusal");
    if (content) {
      Result<json::value> flat = flat_content(*content, from_assistant, where + ".content");
      if (!flat) return flat.error();
      copy["content"] = std::move(*flat);
    } else if (!from_assistant && name != "function") {
      return bad_messages(where + ".content is missing; only an assistant's or a function's may be null.");
    } else if (has_tool_calls(copy) && style.null_content) {
      copy["content"] = nullptr;
    } else {
      copy["content"] = "";
    }
    if (style.object_arguments && has_tool_calls(copy)) parse_arguments(copy.at("tool_calls").get_array());
    result.push_back(std::move(copy));
  }
  return result;
}

}  // namespace serval
