#include "server/ollama/ollama_request.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <optional>
#include <utility>

#include "engine/json/fields.h"
#include "engine/json/json_reader.h"
#include "server/answers/dialect.h"

namespace serval {
namespace {

namespace json = boost::json;

constexpr const char* kNotSupported = "not_supported";
constexpr size_t kMaxShortStringBytes = 1024;
constexpr int kBytesPerDigits = 14;  // of a number in an answer, about

template <class Read>
Result<OllamaRequest> translate(std::string_view body, bool strict, Read read) {
  Result<json::object> object = read_json_object(body);
  if (!object) return object.error();
  try {
    const Fields fields(*object);
    OllamaRequest out;
    out.generate.model = without_tag(fields.find_string("model", kMaxShortStringBytes).value_or(""));
    read(fields, out);
    fields.ignore({"keep_alive"});
    if (const std::vector<std::string> unknown = fields.unknown(); strict && !unknown.empty())
      fields.refuse(unknown.front(), "is not a parameter of this URL", "unknown_parameter");
    return out;
  } catch (const FieldError& refused) {
    return refused.error();
  }
}

void refuse_images(const Fields& fields) {
  if (const json::array* const images = fields.find_array("images"); images != nullptr && !images->empty())
    fields.refuse("images", "is not supported by this server: it takes text only", kNotSupported);
}

void read_options(const Fields& fields, OllamaRequest& out) {
  GenerateRequest& r = out.generate;
  out.stream = fields.get_bool("stream", true);
  if (fields.get_bool("logprobs", false)) fields.refuse("logprobs", "is not supported here: ask /v1/chat/completions", kNotSupported);
  if (fields.find_integer("top_logprobs").value_or(0) != 0) fields.refuse("top_logprobs", "is not supported here: ask /v1/chat/completions", kNotSupported);
  r.max_tokens_param = "options.num_predict";
  r.max_tokens = -1;  // all the room, as Ollama has it
  const std::optional<Fields> options = fields.find_object("options");
  if (!options) return;
  if (const auto most = options->find_integer("num_predict"); most && *most >= 0) r.max_tokens = most;
  r.temperature = options->find_finite("temperature");
  r.top_p = options->find_finite("top_p");
  r.min_p = options->find_finite("min_p");
  r.top_k = options->find_integer("top_k");
  r.seed = options->find_integer("seed");
  r.repetition_penalty = options->find_finite("repeat_penalty");
  r.presence_penalty = options->find_finite("presence_penalty");
  r.frequency_penalty = options->find_finite("frequency_penalty");
  r.stop = options->find_strings("stop", kMaxShortStringBytes);
}

void read_format(const Fields& fields, GenerateRequest& out) {
  const json::value* const format = fields.find("format");
  if (format == nullptr || *format == "") return;
  if (format->is_object()) {
    out.format = OutputFormat{.kind = OutputFormat::Kind::kJsonSchema, .text = json::serialize(*format), .param = "format"};
  } else if (*format == "json") {
    out.format = OutputFormat{.param = "format"};
  } else {
    fields.refuse("format", "must be \"json\" or a JSON Schema", "invalid_type");
  }
}

// true, false, or how much.
void read_think(const Fields& fields, Chat& chat) {
  const json::value* const think = fields.find("think");
  if (think == nullptr) return;
  if (think->is_bool()) {
    chat.template_variables.emplace_back("enable_thinking", think->get_bool());
  } else {
    chat.template_variables.emplace_back("reasoning_effort", fields.get_string("think"));
  }
}

ChatMessage read_message(const Fields& message) {
  refuse_images(message);
  ChatMessage out{.role = message.get_string("role")};
  out.content = message.find_string("content").value_or("");
  if (const auto thinking = message.find_string("thinking"); thinking && !thinking->empty())
    out.fields.emplace_back("reasoning_content", *thinking);
  if (const auto name = message.find_string("tool_name")) out.fields.emplace_back("name", *name);
  const json::array* const calls = message.find_array("tool_calls");
  for (size_t i = 0; calls != nullptr && i < calls->size(); ++i) {
    const Fields function = message.inside((*calls)[i], place_in("tool_calls", i)).get_object("function");
    out.tool_calls.push_back({.id = "call_" + std::to_string(i),
                              .name = function.get_string("name"),
                              .arguments = json::serialize(function.get_object("arguments").object())});
  }
  return out;
}

}  // namespace

std::string without_tag(std::string name) {
  constexpr std::string_view kLatest = ":latest";
  if (name.ends_with(kLatest)) name.resize(name.size() - kLatest.size());
  return name;
}

Result<OllamaRequest> parse_ollama_chat(std::string_view body, bool strict) {
  return translate(body, strict, [](const Fields& fields, OllamaRequest& out) {
    Chat chat;
    chat.in_parts = true;
    const json::array& messages = fields.get_array("messages");
    for (size_t i = 0; i < messages.size(); ++i) chat.messages.push_back(read_message(fields.inside(messages[i], place_in("messages", i))));
    out.only_loads = messages.empty();
    if (const json::array* const tools = fields.find_array("tools")) {
      for (const json::value& tool : *tools) {
        if (!tool.is_object()) fields.refuse("tools", "must be an array of objects", "invalid_type");
        chat.tools.push_back({json::serialize(tool)});
      }
    }
    read_think(fields, chat);
    read_options(fields, out);
    read_format(fields, out.generate);
    out.generate.chat = std::move(chat);
  });
}

Result<OllamaRequest> parse_ollama_generate(std::string_view body, bool strict) {
  return translate(body, strict, [](const Fields& fields, OllamaRequest& out) {
    const std::string prompt = fields.find_string("prompt").value_or("");
    const std::string system = fields.find_string("system").value_or("");
    const std::optional<std::string> suffix = fields.find_string("suffix");
    const bool is_raw = fields.get_bool("raw", false);
    refuse_images(fields);
    for (const char* const name : {"template", "context"}) {
      if (const json::value* const value = fields.find(name); value && !(value->is_string() && value->get_string().empty()))
        fields.refuse(name, "is not supported by this server", kNotSupported);
    }
    out.only_loads = prompt.empty();
    Chat chat;
    chat.in_parts = true;
    read_think(fields, chat);
    read_options(fields, out);
    read_format(fields, out.generate);
    if (is_raw || (suffix && !suffix->empty())) {
      out.generate.prompts.emplace_back(prompt);
      if (suffix && !suffix->empty()) out.generate.suffix = *suffix;
      return;
    }
    if (!system.empty()) chat.messages.push_back({.role = "system", .content = system});
    chat.messages.push_back({.role = "user", .content = prompt});
    out.generate.chat = std::move(chat);
  });
}

Result<OllamaRequest> parse_ollama_embed(std::string_view body, bool strict) {
  return translate(body, strict, [](const Fields& fields, OllamaRequest& out) {
    GenerateRequest& r = out.generate;
    r.prompt_param = fields.find("prompt") ? "prompt" : "input";
    if (fields.find("input") && r.prompt_param == "prompt") fields.refuse("prompt", "and input exclude each other");
    const json::value& input = fields.get(r.prompt_param);
    if (input.is_string()) {
      r.prompts.emplace_back(std::string(input.get_string()));
    } else {
      for (const json::value& text : fields.get_array(r.prompt_param)) {
        if (!text.is_string()) fields.refuse(r.prompt_param, "must be a string or an array of strings", "invalid_type");
        r.prompts.emplace_back(std::string(text.get_string()));
      }
    }
    PoolRequest& pool = r.pool.emplace();
    pool.dimensions = fields.find_integer("dimensions");
    pool.finishes = true;
    pool.bytes_per_number = kBytesPerDigits;
    if (fields.get_bool("truncate", true)) r.truncate_prompt_tokens = -1;
    r.keeps_end = false;
    fields.ignore({"options"});
  });
}

Result<std::string> parse_ollama_name(std::string_view body) {
  Result<json::object> object = read_json_object(body);
  if (!object) return object.error();
  try {
    const Fields fields(*object);
    return without_tag(fields.get_string(fields.find("name") && !fields.find("model") ? "name" : "model").substr(0, kMaxShortStringBytes));
  } catch (const FieldError& refused) {
    return refused.error();
  }
}

}  // namespace serval
