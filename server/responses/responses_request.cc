#include "server/responses/responses_request.h"

#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <string>

#include "engine/json/fields.h"
#include "engine/json/json_reader.h"
#include "server/answers/dialect.h"

namespace serval {
namespace {

namespace json = boost::json;

constexpr const char* kNotSupported = "not_supported";
constexpr size_t kMaxShortStringBytes = 1024;

// A text, or parts of which all are texts, a line each.
std::string read_text(const Fields& item, std::string_view name) {
  const json::value& value = item.get(name);
  if (value.is_string()) return std::string(value.get_string());
  std::string text;
  const json::array& parts = item.get_array(name);
  for (size_t i = 0; i < parts.size(); ++i) {
    const Fields part = item.inside(parts[i], place_in(name, i));
    const std::string type = part.get_string("type");
    const bool is_refusal = type == "refusal";
    if (type != "input_text" && type != "output_text" && type != "text" && type != "reasoning_text" && type != "summary_text" && !is_refusal)
      part.refuse("type", "is \"" + type.substr(0, 64) + "\"; this server takes text only", kNotSupported);
    if (!text.empty()) text += '\n';
    text += part.get_string(is_refusal ? "refusal" : "text");
  }
  return text;
}

// Items in their order; what an assistant thought, said and called one after the other is one message of a template's.
class Conversation {
 public:
  explicit Conversation(std::vector<ChatMessage> before) : messages(std::move(before)) {}

  void add(const Fields& item) {
    const std::string type = item.find_string("type").value_or("message");
    if (type == "message") {
      const std::string role = item.get_string("role");
      if (role == "assistant") {
        assistant().content = read_text(item, "content");
      } else {
        add_message({.role = role, .content = read_text(item, "content")});
      }
    } else if (type == "function_call") {
      ChatMessage& message = assistant();
      message.tool_calls.push_back({.id = item.get_string("call_id"), .name = item.get_string("name"), .arguments = item.get_string("arguments")});
    } else if (type == "function_call_output") {
      ChatMessage result{.role = "tool", .content = read_text(item, "output")};
      result.fields.emplace_back("tool_call_id", item.get_string("call_id"));
      add_message(std::move(result));
    } else if (type == "reasoning") {
      const bool has_content = item.find("content") != nullptr;
      assistant().fields.emplace_back("reasoning_content", has_content || item.find("summary") ? read_text(item, has_content ? "content" : "summary") : "");
    } else {
      item.refuse("type", "is \"" + type.substr(0, 64) + "\", which this server does not take", kNotSupported);
    }
  }
  void add_message(ChatMessage message) {
    is_assistants_ = false;
    messages.push_back(std::move(message));
  }

  std::vector<ChatMessage> messages;

 private:
  ChatMessage& assistant() {
    if (!is_assistants_) messages.push_back({.role = "assistant"});
    is_assistants_ = true;
    return messages.back();
  }
  bool is_assistants_ = false;
};

// As templates know it: the dialect has the function's fields beside its type.
JsonText read_tool(const Fields& tool) {
  if (tool.get_string("type") != "function") tool.refuse("type", "may only be \"function\": this server has no tools of its own", kNotSupported);
  return function_tool(tool, tool.find_object("parameters"));
}

void read_tools(const Fields& fields, Chat& chat) {
  const json::value* const choice = fields.find("tool_choice");
  chat.must_call = choice && *choice != "auto" && *choice != "none";
  if (chat.must_call && *choice != "required") {
    const Fields named = fields.get_object("tool_choice");
    if (named.get_string("type") != "function") named.refuse("type", "may only be \"function\" on this server", kNotSupported);
    chat.tool_to_call = named.get_string("name");
  }
  chat.only_one_call = !fields.get_bool("parallel_tool_calls", true);
  const json::array* const tools = fields.find_array("tools");
  for (size_t i = 0; tools != nullptr && i < tools->size(); ++i) {
    JsonText tool = read_tool(fields.inside((*tools)[i], place_in("tools", i)));
    if (!choice || *choice != "none") chat.tools.push_back(std::move(tool));
  }
  if (chat.must_call && chat.tools.empty()) fields.refuse("tool_choice", "needs tools");
}

void read_effort(const Fields& fields, Chat& chat) {
  const std::optional<Fields> reasoning = fields.find_object("reasoning");
  const std::optional<std::string> effort = reasoning ? reasoning->find_string("effort") : std::nullopt;
  if (!effort) return;
  if (*effort == "none") chat.template_variables.emplace_back("enable_thinking", false);
  if (*effort != "none") chat.template_variables.emplace_back("reasoning_effort", *effort);
}

// What the answer must be, if it is asked for.
std::optional<OutputFormat> read_text_format(const Fields& fields) {
  const std::optional<Fields> text = fields.find_object("text");
  const std::optional<Fields> format = text ? text->find_object("format") : std::nullopt;
  const std::string type = format ? format->get_string("type") : "text";
  OutputFormat asked{.param = "text.format"};
  if (type == "text") return std::nullopt;
  if (type == "json_object") return asked;
  if (type != "json_schema")
    format->refuse("type", "may only be \"text\", \"json_object\" or \"json_schema\" on this server", kNotSupported);
  format->ignore({"name", "description", "strict"});
  asked.kind = OutputFormat::Kind::kJsonSchema;
  asked.text = json::serialize(format->get("schema"));
  return asked;
}

void refuse_unbuilt(const Fields& fields) {
  if (fields.get_bool("background", false)) fields.refuse("background", "is not supported by this server", kNotSupported);
  for (const char* const name : {"conversation", "prompt", "context_management"}) {
    if (fields.find(name)) fields.refuse(name, "is not supported by this server", kNotSupported);
  }
  if (fields.find_integer("top_logprobs").value_or(0) != 0) fields.refuse("top_logprobs", "is not supported here: ask /v1/chat/completions", kNotSupported);
  if (const auto truncation = fields.find_string("truncation"); truncation && *truncation != "disabled")
    fields.refuse("truncation", "may only be \"disabled\" on this server", kNotSupported);
  fields.ignore({"metadata", "include", "user", "service_tier", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "safety_identifier", "stream_options",
                 "max_tool_calls", "moderation"});
}

json::object repeated_fields(const json::object& request) {
  json::object repeated{{"instructions", nullptr}, {"max_output_tokens", nullptr}, {"metadata", json::object()}, {"parallel_tool_calls", true},
                        {"previous_response_id", nullptr}, {"reasoning", {{"effort", nullptr}, {"summary", nullptr}}}, {"store", true},
                        {"temperature", nullptr}, {"text", {{"format", {{"type", "text"}}}}}, {"tool_choice", "auto"}, {"tools", json::array()},
                        {"top_p", nullptr}, {"truncation", "disabled"}, {"user", nullptr}};
  for (auto& [name, value] : repeated) {
    const json::value* const given = request.if_contains(name);
    if (given && !given->is_null()) value = *given;
  }
  return repeated;
}

void read_input(const Fields& fields, ResponsesRequest& out, Conversation& conversation) {
  const json::value& input = fields.get("input");
  if (input.is_string()) {
    conversation.add_message({.role = "user", .content = std::string(input.get_string())});
    out.input.push_back({{"type", "message"}, {"role", "user"}, {"content", {{{"type", "input_text"}, {"text", input}}}}});
    return;
  }
  const json::array& items = fields.get_array("input");
  for (size_t i = 0; i < items.size(); ++i) conversation.add(fields.inside(items[i], place_in("input", i)));
  out.input = items;
}

}  // namespace

Result<ResponsesRequest> parse_responses_request(std::string_view body, const ResponseStore& store, int key, bool strict) {
  Result<json::object> object = read_json_object(body);
  if (!object) return object.error();
  try {
    const Fields fields(*object);
    ResponsesRequest out;
    GenerateRequest& r = out.generate;
    r.model = fields.find_string("model", kMaxShortStringBytes).value_or("");
    std::vector<ChatMessage> before;
    if (const auto previous = fields.find_string("previous_response_id", kMaxShortStringBytes)) {
      const std::shared_ptr<const StoredResponse> found = store.find(*previous, key);
      if (!found)
        return invalid("previous_response_id", "previous_response_not_found", "previous_response_id names no response that this server keeps.");
      before = found->conversation;
    }
    Conversation conversation(std::move(before));
    read_input(fields, out, conversation);
    out.conversation = conversation.messages;
    Chat chat;
    chat.in_parts = true;
    chat.messages = std::move(conversation.messages);
    if (auto instructions = fields.find_string("instructions"))
      chat.messages.insert(chat.messages.begin(), {.role = "system", .content = std::move(*instructions)});
    read_tools(fields, chat);
    read_effort(fields, chat);
    r.chat = std::move(chat);
    r.max_tokens = fields.find_integer("max_output_tokens");
    r.max_tokens_param = "max_output_tokens";
    r.temperature = fields.find_finite("temperature");
    r.top_p = fields.find_finite("top_p");
    out.stream = fields.get_bool("stream", false);
    out.store = fields.get_bool("store", true);
    refuse_unbuilt(fields);
    r.format = read_text_format(fields);
    if (const std::vector<std::string> unknown = fields.unknown(); strict && !unknown.empty())
      fields.refuse(unknown.front(), "is not a parameter of this URL", "unknown_parameter");
    out.repeated = repeated_fields(*object);
    return out;
  } catch (const FieldError& refused) {
    return refused.error();
  }
}

}  // namespace serval
