#include "server/openai/openai_request.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <charconv>
#include <limits>
#include <memory>

#include "engine/json/fields.h"
#include "engine/json/json_reader.h"
#include "server/openai/chat_messages.h"
#include "server/openai/output_format.h"
#include "server/openai/chat_tools.h"
#include "server/openai/read_request.h"

namespace serval {
namespace {

namespace json = boost::json;

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
    {"logits_processors"},
    {"logit_processors"},
    {"custom_logit_processor"},
    {"structural_tag", RefusedWhen::kAnyValue},
    {"json_schema", RefusedWhen::kAnyValue},
    {"regex"},
    {"ebnf"},
    {"grammar"},
    {"logprob_token_ids"},
    {"prompt_embeds", RefusedWhen::kAnyValue},
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

void refuse_unbuilt(const Fields& fields) {
  for (const RefusedField& field : kRefusedFields) {
    const json::value* value = fields.find(field.name);
    if (!value || (field.when == RefusedWhen::kUnlessEmpty && is_empty(*value))) continue;
    fields.refuse(field.name,
                  std::string_view(field.code) == "not_allowed" ? "is not accepted from clients"
                                                                : "is not supported by this server",
                  field.code);
  }
}

void refuse_modalities(const Fields& fields) {
  const json::value* modalities = fields.find("modalities");
  if (!modalities) return;
  if (!modalities->is_array()) {
    fields.refuse("modalities", "must be an array", kInvalidType);
  }
  for (const json::value& modality : modalities->get_array()) {
    if (modality != "text")
      fields.refuse("modalities", "may only hold \"text\" on this server", kNotSupported);
  }
}

// --- what both kinds of request share ---

void read_logit_bias(const Fields& fields, GenerateRequest& out) {
  const json::value* bias = fields.find("logit_bias");
  if (!bias) return;
  if (!bias->is_object()) {
    fields.refuse("logit_bias", "must be an object of token ids and numbers", kInvalidType);
  }
  for (const auto& [key, value] : bias->get_object()) {
    int64_t token = 0;
    const char* const end = key.data() + key.size();
    const auto parsed = std::from_chars(key.data(), end, token);
    if (key.empty() || parsed.ec != std::errc() || parsed.ptr != end) {
      fields.refuse("logit_bias", "has a key that is not a token id", "invalid_token_id");
    } else if (!value.is_number()) {
      fields.refuse("logit_bias", "has a value that is not a number", kInvalidType);
    }
    out.logit_bias.emplace_back(token,
                                value.to_number<double>());  // the validator refuses what is not finite
  }
}

// Returns how many fields inside were passed over.
int read_stream_options(const Fields& fields, OpenAiRequest& out, const RequestOptions& options) {
  int num_ignored = 0;
  out.stream = fields.get_bool("stream", false);
  const json::value* given = fields.find("stream_options");
  if (!given) return num_ignored;
  if (!given->is_object()) fields.refuse("stream_options", "must be an object", kInvalidType);
  if (!out.stream) fields.refuse("stream_options", "needs stream to be true");
  const Fields nested = fields.get_object("stream_options");
  out.include_usage = nested.get_bool("include_usage", false);
  nested.ignore({"include_obfuscation"});
  out.continuous_usage = nested.get_bool("continuous_usage_stats", false) && out.include_usage;
  pass_over_unknown(nested, options, num_ignored);
  return num_ignored;
}

// Text, or parts of text one after another.
void read_prediction(const Fields& fields, GenerateRequest& out) {
  const std::optional<Fields> prediction = fields.find_object("prediction");
  if (!prediction) return;
  const json::value* const content = prediction->find("content");
  const std::optional<std::string> type = prediction->find_string("type");
  if (type && *type != "content") prediction->refuse("type", "may only be \"content\"", kNotSupported);
  if (!content) return;
  std::string text;
  if (content->is_array()) {
    for (const json::value& part : content->get_array())
      text += prediction->inside(part, "content").get_string("text");
  } else {
    text = prediction->get_string("content");
  }
  out.prediction = std::move(text);
}

// {"method", "depth", "width", "acceptance", "threshold"}
void read_speculation(const Fields& fields, GenerateRequest& out) {
  const std::optional<Fields> speculation = fields.find_object("speculation");
  if (!speculation) return;
  out.speculation_method = speculation->find_string("method", kMaxShortStringBytes);
  out.speculation_acceptance = speculation->find_string("acceptance", kMaxShortStringBytes);
  out.speculation_depth = speculation->find_integer("depth");
  out.speculation_width = speculation->find_integer("width");
  out.speculation_threshold = speculation->find_finite("threshold");
}

void read_max_tokens(const Fields& fields, GenerateRequest& out) {
  out.max_tokens = fields.find_integer("max_tokens");
  if (const auto newer = fields.find_integer("max_completion_tokens")) {
    out.max_tokens = newer;
    out.max_tokens_param = "max_completion_tokens";
  }
}

// Returns how many fields inside others were passed over.
int read_common(const Fields& fields, OpenAiRequest& out, const RequestOptions& options) {
  GenerateRequest& r = out.generate;
  r.model = find_name(fields, "model").value_or("");
  fields.find_string("user", kMaxShortStringBytes);  // no meaning here, but a megabyte of it is a mistake
  r.n = fields.find_integer("n");
  read_max_tokens(fields, r);
  r.min_tokens = fields.find_integer("min_tokens");
  r.temperature = fields.find_finite("temperature");
  r.top_p = fields.find_finite("top_p");
  r.min_p = fields.find_finite("min_p");
  r.top_k = fields.find_integer("top_k");
  r.presence_penalty = fields.find_finite("presence_penalty");
  r.frequency_penalty = fields.find_finite("frequency_penalty");
  r.repetition_penalty = fields.find_finite("repetition_penalty");
  r.seed = fields.find_integer("seed");
  read_logit_bias(fields, r);
  r.stop = fields.find_strings("stop", kMaxShortStringBytes);
  r.stop_token_ids = fields.find_integers("stop_token_ids");
  r.allowed_token_ids = fields.find_integers("allowed_token_ids");
  r.bad_words = fields.find_strings("bad_words", kMaxShortStringBytes);
  r.include_stop_str_in_output = fields.get_bool("include_stop_str_in_output", false);
  r.skip_special_tokens = fields.get_bool("skip_special_tokens", true);
  r.ignore_eos = fields.get_bool("ignore_eos", false);
  r.prompt_logprobs = fields.find_integer("prompt_logprobs");
  r.cache_salt = fields.find_string("cache_salt", kMaxShortStringBytes);
  r.priority = fields.find_integer("priority");
  r.truncate_prompt_tokens = fields.find_integer("truncate_prompt_tokens");
  read_prediction(fields, r);
  read_speculation(fields, r);
  out.return_token_ids = fields.get_bool("return_token_ids", false);
  out.tokens_as_ids = fields.get_bool("return_tokens_as_token_ids", false);
  const int num_ignored = read_stream_options(fields, out, options);
  refuse_unbuilt(fields);
  r.format = read_output_format(fields);
  fields.ignore({"audio", "metadata", "moderation", "prompt_cache_key", "prompt_cache_options",
                 "prompt_cache_retention", "safety_identifier", "service_tier", "store", "verbosity",
                 "web_search_options"});
  return num_ignored;
}

// --- chat ---

void read_chat_logprobs(const Fields& fields, GenerateRequest& out) {
  const bool logprobs = fields.get_bool("logprobs", false);
  const std::optional<int64_t> top = fields.find_integer("top_logprobs");
  if (!logprobs && top.value_or(0) != 0) {
    fields.refuse("top_logprobs", "needs logprobs to be true", "invalid_value");
  }
  if (logprobs) out.logprobs = top.value_or(0);
}

// So many are drawn, of which the best n are told: those of the highest log-probability a token.
void read_best_of(const Fields& fields, OpenAiRequest& out) {
  GenerateRequest& r = out.generate;
  const std::optional<int64_t> best_of = fields.find_integer("best_of");
  const int64_t n = r.n.value_or(1);
  const std::optional<double> length_penalty = fields.find_number("length_penalty", -100, 100);
  if (fields.get_bool("use_beam_search", false)) {
    if (best_of.value_or(n) < 1) fields.refuse(best_of ? "best_of" : "n", "must be at least 1", "value_out_of_range");
    r.beams = BeamSearch{.width = best_of.value_or(n), .length_penalty = length_penalty.value_or(1)};
    r.n_param = best_of ? "best_of" : "n";
    return;
  }
  if (!best_of || *best_of == n) return;
  if (*best_of < n) fields.refuse("best_of", "must be at least n, " + std::to_string(n), "value_out_of_range");
  if (out.stream) fields.refuse("best_of", "must equal n in a stream, which cannot tell the best before the end");
  out.num_best = n;
  out.hides_logprobs = !r.logprobs;
  r.n = best_of;
  r.n_param = "best_of";
  r.logprobs = r.logprobs.value_or(0);
}

}  // namespace

Result<OpenAiRequest> parse_chat_request(std::string_view body, const RequestOptions& options) {
  return translate<OpenAiRequest>(body, options, [&](const Fields& fields, OpenAiRequest& out) {
    out.generate.chat = read_chat(fields);
    const int num_ignored = read_common(fields, out, options);
    read_chat_logprobs(fields, out.generate);
    read_tools(fields, *out.generate.chat);
    refuse_modalities(fields);
    if (fields.get_bool("use_beam_search", false)) fields.refuse("use_beam_search", "is not supported for chats", kNotSupported);
    if (const auto best_of = fields.find_integer("best_of"); best_of && *best_of != out.generate.n.value_or(1))
      fields.refuse("best_of", "may only equal n for chats", kNotSupported);
    if (fields.get_bool("echo", false)) fields.refuse("echo", "is not supported for chats", kNotSupported);
    return num_ignored;
  });
}

Result<OpenAiRequest> parse_completion_request(std::string_view body, const RequestOptions& options) {
  return translate<OpenAiRequest>(body, options, [&](const Fields& fields, OpenAiRequest& out) {
    out.generate.prompts = read_prompts(fields, "prompt");
    const int num_ignored = read_common(fields, out, options);
    out.generate.logprobs = fields.find_integer("logprobs");
    out.generate.echo = fields.get_bool("echo", false);
    if (auto suffix = fields.find_string("suffix"); suffix && !suffix->empty()) out.generate.suffix = std::move(*suffix);
    read_best_of(fields, out);
    out.generate.add_special_tokens = fields.get_bool("add_special_tokens", true);
    return num_ignored;
  });
}

Result<TokenizeRequest> parse_tokenize_request(std::string_view body, const RequestOptions& options) {
  return translate<TokenizeRequest>(body, options, [](const Fields& fields, TokenizeRequest& out) {
    out.generate.model = find_name(fields, "model").value_or("");
    out.return_token_strs = fields.get_bool("return_token_strs", false);
    out.generate.add_special_tokens = fields.get_bool("add_special_tokens", true);
    if (fields.find("messages")) {
      if (fields.find("prompt")) fields.refuse("prompt", "and messages exclude each other", "invalid_prompt");
      out.generate.chat = read_chat(fields);
      // There is no answer that could call one.
      out.generate.chat->tools = read_objects(fields, "tools");
    } else {
      std::optional<std::string> prompt = fields.find_string("prompt");
      if (!prompt) fields.refuse("prompt", "must be a string (or give messages)", "invalid_prompt");
      out.generate.prompts.emplace_back(std::move(*prompt));
    }
    refuse_unbuilt(fields);
    if (fields.get_bool("use_beam_search", false)) fields.refuse("use_beam_search", "is not supported here", kNotSupported);
    return 0;
  });
}

Result<DetokenizeRequest> parse_detokenize_request(std::string_view body, const RequestOptions& options) {
  return translate<DetokenizeRequest>(body, options, [](const Fields& fields, DetokenizeRequest& out) {
    out.model = find_name(fields, "model").value_or("");
    if (!fields.find("tokens")) fields.refuse("tokens", "must be an array of token ids", kInvalidType);
    out.tokens = fields.find_integers("tokens");
    return 0;
  });
}

}  // namespace serval
