#include "server/anthropic/messages_request.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
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

void add_line(std::string& text, std::string_view line) {
  if (!text.empty()) text += '\n';
  text += line;
}

// A text, or blocks of which all are texts.
std::string read_text(const Fields& fields, std::string_view name) {
  const json::value& value = fields.get(name);
  if (value.is_string()) return std::string(value.get_string());
  std::string text;
  const json::array& blocks = fields.get_array(name);
  for (size_t i = 0; i < blocks.size(); ++i) {
    const Fields block = fields.inside(blocks[i], place_in(name, i));
    if (block.get_string("type") != "text") block.refuse("type", "may only be \"text\" here: this server takes no pictures and files", kNotSupported);
    add_line(text, block.get_string("text"));
  }
  return text;
}

// One message of theirs may be several of a template's: results of tools each have one of their own, before what else a user says.
void read_message(const Fields& message, Chat& chat) {
  const std::string role = message.get_string("role");
  if (role != "user" && role != "assistant" && role != "system") message.refuse("role", "must be \"user\" or \"assistant\"");
  ChatMessage out{.role = role};
  const json::value& content = message.get("content");
  if (content.is_string()) {
    out.content = std::string(content.get_string());
    chat.messages.push_back(std::move(out));
    return;
  }
  std::string text, thinking;
  bool has_results = false;
  const json::array& blocks = message.get_array("content");
  for (size_t i = 0; i < blocks.size(); ++i) {
    const Fields block = message.inside(blocks[i], place_in("content", i));
    const std::string type = block.get_string("type");
    if (type == "text") {
      add_line(text, block.get_string("text"));
    } else if (type == "thinking" && role == "assistant") {
      add_line(thinking, block.get_string("thinking"));
    } else if (type == "redacted_thinking" && role == "assistant") {
      continue;
    } else if (type == "tool_use" && role == "assistant") {
      out.tool_calls.push_back({.id = block.get_string("id"),
                                .name = block.get_string("name"),
                                .arguments = json::serialize(block.get_object("input").object())});
    } else if (type == "tool_result" && role == "user") {
      ChatMessage result{.role = "tool"};
      result.content = block.find("content") ? read_text(block, "content") : "";
      result.fields.emplace_back("tool_call_id", block.get_string("tool_use_id"));
      chat.messages.push_back(std::move(result));
      has_results = true;
    } else {
      block.refuse("type", "is \"" + type.substr(0, 64) + "\", which this server does not take from a message of role \"" + role + "\"", kNotSupported);
    }
  }
  if (has_results && text.empty()) return;
  if (!text.empty() || out.tool_calls.empty()) out.content = std::move(text);
  if (!thinking.empty()) out.fields.emplace_back("reasoning_content", std::move(thinking));
  chat.messages.push_back(std::move(out));
}

// Their tools as templates know them.
JsonText read_tool(const Fields& tool) {
  if (const auto type = tool.find_string("type"); type && *type != "custom")
    tool.refuse("type", "may only be \"custom\": this server has no tools of its own", kNotSupported);
  return function_tool(tool, tool.get_object("input_schema"));
}

void read_tools(const Fields& fields, Chat& chat) {
  const std::optional<Fields> choice = fields.find_object("tool_choice");
  const std::string type = choice ? choice->get_string("type") : "auto";
  chat.must_call = type == "any" || type == "tool";
  if (type == "tool") chat.tool_to_call = choice->get_string("name");
  if (!chat.must_call && type != "auto" && type != "none") choice->refuse("type", "must be \"auto\", \"any\", \"tool\" or \"none\"");
  if (choice) chat.only_one_call = choice->get_bool("disable_parallel_tool_use", false);
  const json::array* const tools = fields.find_array("tools");
  for (size_t i = 0; tools != nullptr && i < tools->size(); ++i) {
    JsonText tool = read_tool(fields.inside((*tools)[i], place_in("tools", i)));
    if (type != "none") chat.tools.push_back(std::move(tool));
  }
  if (chat.must_call && chat.tools.empty()) fields.refuse("tool_choice", "needs tools");
}

Chat read_chat(const Fields& fields) {
  Chat chat;
  chat.in_parts = true;
  if (fields.find("system")) chat.messages.push_back({.role = "system", .content = read_text(fields, "system")});
  const json::array& messages = fields.get_array("messages");
  for (size_t i = 0; i < messages.size(); ++i) read_message(fields.inside(messages[i], place_in("messages", i)), chat);
  read_tools(fields, chat);
  if (const std::optional<Fields> thinking = fields.find_object("thinking")) {
    chat.template_variables.emplace_back("enable_thinking", thinking->get_string("type") != "disabled");
  }
  // Who ends with what the assistant says wants it to go on from there.
  chat.continue_final_message = !chat.messages.empty() && chat.messages.back().role == "assistant";
  chat.add_generation_prompt = !chat.continue_final_message;
  return chat;
}

void read_sampling(const Fields& fields, bool counts_only, GenerateRequest& out) {
  out.max_tokens = fields.find_integer("max_tokens");
  if (!counts_only && !out.max_tokens) fields.refuse("max_tokens", "is missing");
  out.temperature = fields.find_finite("temperature");
  out.top_p = fields.find_finite("top_p");
  out.top_k = fields.find_integer("top_k");
  out.stop = fields.find_strings("stop_sequences", kMaxShortStringBytes);
  if (fields.find("container") || fields.find("mcp_servers"))
    fields.refuse(fields.find("container") ? "container" : "mcp_servers", "is not supported by this server", kNotSupported);
  if (const std::optional<Fields> output = fields.find_object("output_config"); output && output->find("format"))
    output->refuse("format", "is not supported by this server", kNotSupported);
  fields.ignore({"metadata", "service_tier", "context_management", "betas", "cache_control", "diagnostics", "inference_geo", "speed"});
}

}  // namespace

Result<MessagesRequest> parse_messages_request(std::string_view body, bool counts_only, bool strict) {
  Result<json::object> object = read_json_object(body);
  if (!object) return object.error();
  try {
    const Fields fields(*object);
    MessagesRequest out;
    out.generate.model = fields.find_string("model", kMaxShortStringBytes).value_or("");
    out.generate.chat = read_chat(fields);
    read_sampling(fields, counts_only, out.generate);
    out.stream = fields.get_bool("stream", false);
    if (const std::vector<std::string> unknown = fields.unknown(); strict && !unknown.empty())
      fields.refuse(unknown.front(), "is not a parameter of this URL", "unknown_parameter");
    return out;
  } catch (const FieldError& refused) {
    return refused.error();
  }
}

}  // namespace serval
