#include "server/openai/openai_request.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <charconv>
#include <limits>
#include <memory>

#include "engine/json/json_reader.h"
#include "server/openai/field_reader.h"

namespace serval {
namespace {

namespace json = boost::json;

using Tree = std::shared_ptr<const json::object>;

// --- features that are not built ---

// A field that would change the answer is refused rather than ignored. kAnyValue: whatever it is set to;
// kUnlessEmpty: unless it is false, "", [] or {}.
enum class RefusedWhen { kAnyValue, kUnlessEmpty };
struct RefusedField {
  std::string_view name;
  RefusedWhen when = RefusedWhen::kUnlessEmpty;
  const char* code = "not_supported";
};

constexpr RefusedField kRefusedFields[] = {
    {"suffix"},
    {"use_beam_search"},
    {"logits_processors"},
    {"logit_processors"},
    {"custom_logit_processor"},
    {"guided_json", RefusedWhen::kAnyValue},
    {"guided_regex"},
    {"guided_choice"},
    {"guided_grammar"},
    {"structured_outputs", RefusedWhen::kAnyValue},
    {"structural_tag", RefusedWhen::kAnyValue},
    {"json_schema", RefusedWhen::kAnyValue},
    {"regex"},
    {"ebnf"},
    {"grammar"},
    {"bad_words"},
    {"allowed_token_ids"},
    {"logprob_token_ids"},
    {"truncate_prompt_tokens", RefusedWhen::kAnyValue},
    {"prompt_embeds", RefusedWhen::kAnyValue},
    {"documents"},
    {"continue_final_message"},
    {"chat_template", RefusedWhen::kAnyValue, "not_allowed"},
    {"kv_transfer_params", RefusedWhen::kAnyValue, "not_allowed"},
    {"bootstrap_host", RefusedWhen::kAnyValue, "not_allowed"},
    {"bootstrap_port", RefusedWhen::kAnyValue, "not_allowed"},
    {"bootstrap_room", RefusedWhen::kAnyValue, "not_allowed"},
};

bool is_empty(const json::value& value) {
  switch (value.kind()) {
    case json::kind::bool_:
      return !value.get_bool();
    case json::kind::string:
      return value.get_string().empty();
    case json::kind::array:
      return value.get_array().empty();
    case json::kind::object:
      return value.get_object().empty();
    default:
      return false;
  }
}

void refuse_unbuilt(FieldReader& reader) {
  for (const RefusedField& field : kRefusedFields) {
    const json::value* value = reader.find(field.name);
    if (!value || (field.when == RefusedWhen::kUnlessEmpty && is_empty(*value))) continue;
    reader.fail(field.name, field.code,
                std::string_view(field.code) == "not_allowed" ? "is not accepted from clients."
                                                              : "is not supported by this server.");
  }
}

// The field of a client's tools, when a model could call one of them.
const char* find_tools(FieldReader& reader, const char* list, const char* choice) {
  const json::value* const tools = reader.find(list);
  const json::value* const chosen = reader.find(choice);
  if (tools && !tools->is_array()) reader.fail(list, "invalid_type", "must be an array.");
  if (chosen && !chosen->is_string() && !chosen->is_object())
    reader.fail(choice, "invalid_type", "must be a string or an object.");
  if (reader.failed()) return nullptr;
  const bool has_tools = tools && !tools->get_array().empty();
  if (!chosen || *chosen == "auto") return has_tools ? list : nullptr;
  if (*chosen == "none") return nullptr;
  return has_tools ? list : choice;
}

// Tools that may not be called leave the answer a text: the model is not shown them.
void refuse_tools(FieldReader& reader) {
  const char* const tools = find_tools(reader, "tools", "tool_choice");
  const char* const functions = find_tools(reader, "functions", "function_call");
  if (const char* const name = tools ? tools : functions) {
    reader.fail(invalid(name, "not_supported",
                        "tools are not supported by this server: leave them out, or set tool_choice to "
                        "\"none\" for an answer in text."));
  }
}

void refuse_response_formats(FieldReader& reader) {
  const json::value* format = reader.find("response_format");
  if (!format) return;
  const json::object* object = format->if_object();
  const json::value* type = object ? object->if_contains("type") : nullptr;
  if (!type || !type->is_string()) {
    reader.fail("response_format", "invalid_type", "must be an object with a string in type.");
  } else if (*type != "text") {
    reader.fail("response_format", "not_supported", "may only be of type \"text\" on this server.");
  }
}

void refuse_modalities(FieldReader& reader) {
  const json::value* modalities = reader.find("modalities");
  if (!modalities) return;
  if (!modalities->is_array()) {
    reader.fail("modalities", "invalid_type", "must be an array.");
    return;
  }
  for (const json::value& modality : modalities->get_array()) {
    if (modality != "text")
      reader.fail("modalities", "not_supported", "may only hold \"text\" on this server.");
  }
}

// --- what both kinds of request share ---

void read_logit_bias(FieldReader& reader, GenerateRequest& out) {
  const json::value* bias = reader.find("logit_bias");
  if (!bias) return;
  if (!bias->is_object()) {
    reader.fail("logit_bias", "invalid_type", "must be an object of token ids and numbers.");
    return;
  }
  for (const auto& [key, value] : bias->get_object()) {
    int64_t token = 0;
    const char* const end = key.data() + key.size();
    const auto parsed = std::from_chars(key.data(), end, token);
    if (key.empty() || parsed.ec != std::errc() || parsed.ptr != end) {
      reader.fail("logit_bias", "invalid_token_id", "has a key that is not a token id.");
    } else if (!value.is_number()) {
      reader.fail("logit_bias", "invalid_type", "has a value that is not a number.");
    }
    if (reader.failed()) return;
    out.logit_bias.emplace_back(token,
                                value.to_number<double>());  // the validator refuses what is not finite
  }
}

void read_stream_options(FieldReader& reader, OpenAiRequest& out, const RequestOptions& options) {
  out.stream = reader.boolean("stream").value_or(false);
  const json::value* given = reader.find("stream_options");
  if (!given) return;
  if (!given->is_object()) {
    reader.fail("stream_options", "invalid_type", "must be an object.");
    return;
  }
  if (!out.stream) {
    reader.fail("stream_options", "invalid_value", "needs stream to be true.");
    return;
  }
  FieldReader nested(given->get_object(), "stream_options.");
  out.include_usage = nested.boolean("include_usage").value_or(false);
  nested.ignore({"include_obfuscation"});
  out.continuous_usage = nested.boolean("continuous_usage_stats").value_or(false) && out.include_usage;
  if (nested.failed()) reader.fail(nested.error());
  if (options.strict) {
    if (const auto unknown = nested.unknown())
      reader.fail(*unknown, "unknown_parameter", "is not a parameter of this URL.");
  } else if (options.on_ignored) {
    if (const int ignored = nested.num_unknown(); ignored > 0) options.on_ignored(ignored);
  }
}

void read_max_tokens(FieldReader& reader, GenerateRequest& out) {
  out.max_tokens = reader.integer("max_tokens");
  if (const auto newer = reader.integer("max_completion_tokens")) {
    out.max_tokens = newer;
    out.max_tokens_param = "max_completion_tokens";
  }
}

void read_common(FieldReader& reader, OpenAiRequest& out, const RequestOptions& options) {
  GenerateRequest& r = out.generate;
  r.model = reader.name("model").value_or("");
  reader.short_string("user");  // no meaning here, but a megabyte of it is a mistake
  r.n = reader.integer("n");
  if (const auto best_of = reader.integer("best_of"); best_of && *best_of != r.n.value_or(1)) {
    reader.fail("best_of", "not_supported", "may only equal n on this server.");
  }
  read_max_tokens(reader, r);
  r.min_tokens = reader.integer("min_tokens");
  r.temperature = reader.number("temperature");
  r.top_p = reader.number("top_p");
  r.min_p = reader.number("min_p");
  r.top_k = reader.integer("top_k");
  r.presence_penalty = reader.number("presence_penalty");
  r.frequency_penalty = reader.number("frequency_penalty");
  r.repetition_penalty = reader.number("repetition_penalty");
  r.seed = reader.integer("seed");
  read_logit_bias(reader, r);
  r.stop = reader.short_strings("stop");
  r.stop_token_ids = reader.integers("stop_token_ids");
  r.include_stop_str_in_output = reader.boolean("include_stop_str_in_output").value_or(false);
  r.skip_special_tokens = reader.boolean("skip_special_tokens").value_or(true);
  r.ignore_eos = reader.boolean("ignore_eos").value_or(false);
  r.prompt_logprobs = reader.integer("prompt_logprobs");
  r.cache_salt = reader.short_string("cache_salt");
  r.priority = reader.integer("priority");
  out.return_token_ids = reader.boolean("return_token_ids").value_or(false);
  out.tokens_as_ids = reader.boolean("return_tokens_as_token_ids").value_or(false);
  read_stream_options(reader, out, options);
  refuse_unbuilt(reader);
  refuse_response_formats(reader);
  reader.ignore({"audio", "metadata", "moderation", "prediction", "prompt_cache_key", "prompt_cache_options",
                 "prompt_cache_retention", "safety_identifier", "service_tier", "store", "verbosity",
                 "web_search_options", "reasoning_effort", "parallel_tool_calls"});
}

// The first error of the whole translation, if there was one. Otherwise reports what was ignored.
template <class T>
Result<T> finish(FieldReader& reader, T&& value, const RequestOptions& options) {
  if (reader.failed()) return reader.error();
  if (options.strict) {
    if (const auto unknown = reader.unknown()) {
      return invalid(*unknown, "unknown_parameter", *unknown + " is not a parameter of this URL.");
    }
  } else if (options.on_ignored) {
    if (const int ignored = reader.num_unknown(); ignored > 0) options.on_ignored(ignored);
  }
  return std::move(value);
}

// --- chat ---

// The messages travel as they came; their roles and parts are checked where the template is fed, for every
// way in.
void read_messages(FieldReader& reader, const Tree& tree, GenerateRequest& out) {
  out.kind = GenerateRequest::Kind::kChat;
  out.chat = tree;
  const json::value* messages = reader.find("messages");
  if (!messages) {
    reader.fail("messages", "invalid_messages", "is missing.");
  } else if (!messages->is_array()) {
    reader.fail("messages", "invalid_messages", "must be an array.");
  }
  const json::value* kwargs = reader.find("chat_template_kwargs");
  if (kwargs && !kwargs->is_object())
    reader.fail("chat_template_kwargs", "invalid_type", "must be an object.");
  out.add_generation_prompt = reader.boolean("add_generation_prompt").value_or(true);
}

void read_chat_logprobs(FieldReader& reader, GenerateRequest& out) {
  const bool logprobs = reader.boolean("logprobs").value_or(false);
  const std::optional<int64_t> top = reader.integer("top_logprobs");
  if (!logprobs && top.value_or(0) != 0) {
    reader.fail("top_logprobs", "invalid_value", "needs logprobs to be true.");
  }
  if (logprobs) out.logprobs = top.value_or(0);
}

// --- completions ---

void bad_prompt(FieldReader& reader) {
  reader.fail("prompt", "invalid_prompt",
              "must be a string, an array of strings, an array of token ids, or an array of those.");
}

std::vector<TokenId> read_token_ids(FieldReader& reader, const json::array& items) {
  std::vector<TokenId> ids;
  ids.reserve(items.size());
  for (const json::value& item : items) {
    if (!item.is_int64()) {
      bad_prompt(reader);
      return {};
    }
    const int64_t id = item.get_int64();
    if (id < std::numeric_limits<TokenId>::min() || id > std::numeric_limits<TokenId>::max()) {
      reader.fail("prompt", "invalid_token_id", "has a token id that no model has.");
      return {};
    }
    ids.push_back(static_cast<TokenId>(id));
  }
  return ids;
}

std::string to_string(const json::string& text) {
  return std::string(text.data(), text.size());
}

void read_prompt(FieldReader& reader, GenerateRequest& out) {
  const json::value* prompt = reader.find("prompt");
  if (prompt && prompt->is_string()) {
    out.prompts.emplace_back(to_string(prompt->get_string()));
    return;
  }
  if (!prompt || !prompt->is_array()) {
    bad_prompt(reader);
    return;
  }
  const json::array& items = prompt->get_array();
  if (!items.empty() && items[0].is_number()) {
    out.prompts.emplace_back(read_token_ids(reader, items));
    return;
  }
  for (const json::value& item : items) {
    if (item.kind() != items[0].kind() || !(item.is_string() || item.is_array())) {
      bad_prompt(reader);
    } else if (item.is_string()) {
      out.prompts.emplace_back(to_string(item.get_string()));
    } else {
      out.prompts.emplace_back(read_token_ids(reader, item.get_array()));
    }
    if (reader.failed()) return;
  }
}

}  // namespace

Result<OpenAiRequest> parse_chat_request(std::string_view body, const RequestOptions& options) {
  Result<Tree> tree = read_json_object(body);
  if (!tree) return tree.error();
  FieldReader reader(**tree);
  OpenAiRequest out;
  read_messages(reader, *tree, out.generate);
  read_common(reader, out, options);
  read_chat_logprobs(reader, out.generate);
  refuse_tools(reader);
  refuse_modalities(reader);
  if (reader.boolean("echo").value_or(false))
    reader.fail("echo", "not_supported", "is not supported for chats.");
  return finish(reader, std::move(out), options);
}

Result<OpenAiRequest> parse_completion_request(std::string_view body, const RequestOptions& options) {
  Result<Tree> tree = read_json_object(body);
  if (!tree) return tree.error();
  FieldReader reader(**tree);
  OpenAiRequest out;
  read_prompt(reader, out.generate);
  read_common(reader, out, options);
  out.generate.logprobs = reader.integer("logprobs");
  out.generate.echo = reader.boolean("echo").value_or(false);
  out.generate.add_special_tokens = reader.boolean("add_special_tokens").value_or(true);
  return finish(reader, std::move(out), options);
}

Result<TokenizeRequest> parse_tokenize_request(std::string_view body, const RequestOptions& options) {
  Result<Tree> tree = read_json_object(body);
  if (!tree) return tree.error();
  FieldReader reader(**tree);
  TokenizeRequest out;
  out.generate.model = reader.name("model").value_or("");
  out.return_token_strs = reader.boolean("return_token_strs").value_or(false);
  out.generate.add_special_tokens = reader.boolean("add_special_tokens").value_or(true);
  if (reader.find("messages")) {
    if (reader.find("prompt")) reader.fail("prompt", "invalid_prompt", "and messages exclude each other.");
    read_messages(reader, *tree, out.generate);
    refuse_tools(reader);
  } else {
    std::optional<std::string> prompt = reader.text("prompt");
    if (!prompt) {
      reader.fail("prompt", "invalid_prompt", "must be a string (or give messages).");
    } else {
      out.generate.prompts.emplace_back(std::move(*prompt));
    }
  }
  refuse_unbuilt(reader);
  return finish(reader, std::move(out), options);
}

Result<DetokenizeRequest> parse_detokenize_request(std::string_view body, const RequestOptions& options) {
  Result<Tree> tree = read_json_object(body);
  if (!tree) return tree.error();
  FieldReader reader(**tree);
  DetokenizeRequest out;
  out.model = reader.name("model").value_or("");
  if (!reader.find("tokens")) reader.fail("tokens", "invalid_type", "must be an array of token ids.");
  out.tokens = reader.integers("tokens");
  return finish(reader, std::move(out), options);
}

}  // namespace serval
