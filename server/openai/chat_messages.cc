#include "server/openai/chat_messages.h"

#include <algorithm>
#include <array>
#include <boost/json/serialize.hpp>
#include <string_view>

#include "engine/json/fields.h"

namespace serval {
namespace {

namespace json = boost::json;

[[noreturn]] void refuse(const char* code, std::string sentence) {
  throw FieldError("", invalid("messages", code, std::move(sentence)));
}
[[noreturn]] void bad_messages(std::string sentence) {
  refuse("invalid_messages", std::move(sentence));
}

// What the schema has and a text model cannot read.
constexpr std::array kUnservedParts = {"image_url", "input_audio", "file", "video_url", "audio_url"};

// Null counts as absent.
const json::value* given_value(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(name);
  return value && !value->is_null() ? value : nullptr;
}

// The text of one part of a message's content. `where`: the part, for errors.
std::string_view text_of_part(const json::value& part, bool from_assistant, const std::string& where) {
  const json::object* const object = part.if_object();
  const json::value* const type = object ? object->if_contains("type") : nullptr;
  if (!type || !type->is_string()) bad_messages(where + " must be an object with a string in type");
  const std::string_view name = type->get_string();
  if (std::find(kUnservedParts.begin(), kUnservedParts.end(), name) != kUnservedParts.end())
    refuse("not_supported", where + " is of type \"" + std::string(name) + "\"; this server takes text only");
  if (name != "text" && !(from_assistant && name == "refusal")) {
    bad_messages(where + ".type must be \"text\"" +
                 (from_assistant      ? " or \"refusal\""
                  : name == "refusal" ? "; only an assistant's may be \"refusal\""
                                      : ""));
  }
  const json::value* const text = object->if_contains(name);
  if (!text || !text->is_string()) bad_messages(where + "." + std::string(name) + " must be a string");
  return text->get_string();
}

// Templates are written for text content; an array of parts becomes its texts, a line each.
std::string flat_content(const json::value& content, bool from_assistant, const std::string& where) {
  if (content.is_string()) return std::string(content.get_string());
  if (!content.is_array()) bad_messages(where + " must be a string, null or an array of parts");
  std::string text;
  for (size_t i = 0; i < content.get_array().size(); ++i) {
    const std::string_view piece =
        text_of_part(content.get_array()[i], from_assistant, where + "[" + std::to_string(i) + "]");
    if (!text.empty()) text += '\n';
    text += piece;
  }
  return text;
}

ToolCall read_call(const json::value* function, std::string id, const std::string& where) {
  const json::object* const object = function ? function->if_object() : nullptr;
  const json::value* const name = object ? given_value(*object, "name") : nullptr;
  const json::value* const arguments = object ? given_value(*object, "arguments") : nullptr;
  if (!name || !name->is_string() || !arguments || !(arguments->is_string() || arguments->is_object()))
    bad_messages(where + " must be an object with a string in name, and in arguments");
  return {.id = std::move(id),
          .name = std::string(name->get_string()),
          .arguments =
              arguments->is_string() ? std::string(arguments->get_string()) : json::serialize(*arguments)};
}

std::vector<ToolCall> read_tool_calls(const json::object& message, const std::string& where) {
  std::vector<ToolCall> result;
  if (const json::value* const calls = given_value(message, "tool_calls")) {
    if (!calls->is_array()) bad_messages(where + ".tool_calls must be an array");
    for (const json::value& call : calls->get_array()) {
      const std::string place = where + ".tool_calls[" + std::to_string(result.size()) + "]";
      const json::object* const object = call.if_object();
      const json::value* const id = object ? given_value(*object, "id") : nullptr;
      if (id && !id->is_string()) bad_messages(place + ".id must be a string");
      result.push_back(read_call(object ? object->if_contains("function") : nullptr,
                                 id ? std::string(id->get_string()) : "", place + ".function"));
    }
  }
  // The older way to call a tool, a message each: templates know no other than the newer.
  if (const json::value* const call = given_value(message, "function_call"); call && result.empty())
    result.push_back(read_call(call, "", where + ".function_call"));
  return result;
}

TemplateValue template_value_of(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null:
      return nullptr;
    case json::kind::bool_:
      return value.get_bool();
    case json::kind::int64:
      return value.get_int64();
    case json::kind::uint64:
      return static_cast<double>(value.get_uint64());
    case json::kind::double_:
      return value.get_double();
    case json::kind::string:
      return std::string(value.get_string());
    default:
      return JsonText{json::serialize(value)};
  }
}

ChatMessage read_message(const json::value& value, const std::string& where) {
  constexpr std::array kRead = {"role", "content", "refusal", "audio", "tool_calls", "function_call"};
  const json::object* const object = value.if_object();
  const json::value* const role = object ? object->if_contains("role") : nullptr;
  if (!role || !role->is_string()) bad_messages(where + " must be an object with a string in role");
  ChatMessage message;
  message.role = std::string(role->get_string());
  const bool from_assistant = message.role == "assistant";
  if (from_assistant && given_value(*object, "audio"))
    refuse("not_supported", where + ".audio refers to an answer in sound; this server takes text only");
  const json::value* content = given_value(*object, "content");
  // An assistant that refused said that instead of a content.
  if (from_assistant && !content) content = given_value(*object, "refusal");
  if (content) message.content = flat_content(*content, from_assistant, where + ".content");
  if (from_assistant) message.tool_calls = read_tool_calls(*object, where);
  for (const auto& [key, inner] : *object) {
    const std::string_view name = key;
    if (std::find(kRead.begin(), kRead.end(), name) != kRead.end()) continue;
    if (!inner.is_structured()) message.fields.emplace_back(std::string(name), template_value_of(inner));
  }
  return message;
}

}  // namespace

std::vector<JsonText> read_objects(const Fields& fields, std::string_view list) {
  std::vector<JsonText> objects;
  const json::array* const values = fields.find_array(list);
  if (values == nullptr) return objects;
  for (const json::value& value : *values) {
    if (!value.is_object()) fields.refuse(list, "must be an array of objects", "invalid_type");
    objects.push_back({json::serialize(value)});
  }
  return objects;
}

Chat read_chat(const Fields& fields) {
  Chat chat;
  const json::value* const messages = fields.find("messages");
  if (!messages) bad_messages("messages is missing");
  if (!messages->is_array()) bad_messages("messages must be an array");
  chat.messages.reserve(messages->get_array().size());
  for (const json::value& message : messages->get_array())
    chat.messages.push_back(read_message(message, "messages[" + std::to_string(chat.messages.size()) + "]"));
  if (const std::optional<Fields> kwargs = fields.find_object("chat_template_kwargs")) {
    for (const auto& [key, value] : kwargs->object())
      chat.template_variables.emplace_back(std::string(key), template_value_of(value));
  }
  // What templates know of OpenAI's word for how long to think; "none" is not to.
  if (std::optional<std::string> effort = fields.find_string("reasoning_effort")) {
    const auto is_said = [&](std::string_view name) { return std::ranges::find(chat.template_variables, name, &TemplateFields::value_type::first) != chat.template_variables.end(); };
    if (*effort == "none" && !is_said("enable_thinking")) chat.template_variables.emplace_back("enable_thinking", false);
    if (*effort != "none" && !is_said("reasoning_effort")) chat.template_variables.emplace_back("reasoning_effort", std::move(*effort));
  }
  chat.documents = read_objects(fields, "documents");
  chat.template_name = fields.find_string("chat_template").value_or("");
  chat.continue_final_message = fields.get_bool("continue_final_message", false);
  const bool may_add = !chat.continue_final_message;
  chat.add_generation_prompt = fields.get_bool("add_generation_prompt", may_add);
  if (chat.add_generation_prompt && chat.continue_final_message)
    fields.refuse("continue_final_message", "and add_generation_prompt exclude each other");
  return chat;
}

}  // namespace serval
