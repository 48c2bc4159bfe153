#include "server/api_document.h"

#include <algorithm>
#include <boost/json.hpp>
#include <utility>

namespace serval {
namespace {

namespace json = boost::json;

constexpr ApiRequest kRequests[] = {
    {'C', "ChatRequest", "chat", {"/v1/chat/completions", "/v1/chat/completions/render"}, {"messages"}},
    {'T', "CompletionRequest", "completion", {"/v1/completions", "/v1/completions/render"}, {"prompt"}},
    {'R', "ResponsesRequest", "responses", {"/v1/responses"}, {"input"}},
    {'M', "MessagesRequest", "messages", {"/v1/messages"}, {"messages", "max_tokens"}},
    {'N', "CountTokensRequest", "count", {"/v1/messages/count_tokens"}, {"messages"}},
    {'E', "EmbeddingRequest", "embeddings", {"/v1/embeddings", "/pooling"}, {"input"}},
    {'K', "ClassifyRequest", "classify", {"/classify"}, {"input"}},
    {'S', "ScoreRequest", "score", {"/v1/score", "/score"}, {"text_1", "text_2"}},
    {'A', "RerankRequest", "rerank", {"/v1/rerank", "/v2/rerank", "/rerank"}, {"query", "documents"}},
    {'Z', "TokenizeRequest", "tokenize", {"/tokenize"}, {}},
    {'O', "OllamaChatRequest", "ollama chat", {"/api/chat"}, {"messages"}},
    {'G', "OllamaGenerateRequest", "generate", {"/api/generate"}, {}},
    {'B', "OllamaEmbedRequest", "embed", {"/api/embed"}, {"input"}},
    {'D', "DetokenizeRequest", "detokenize", {"/detokenize"}, {"tokens"}},
    {'U', "FileRequest", "file", {"/v1/files"}, {"file", "purpose"}, /*is_form=*/true},
    {'J', "BatchRequest", "batch", {"/v1/batches"}, {"input_file_id", "endpoint", "completion_window"}},
};

constexpr ApiField kFields[] = {
    {"activation", "boolean", "EKSA"},
    {"add_generation_prompt", "boolean", "CZ"},
    {"add_special_tokens", "boolean", "TEKSAZ"},
    {"allowed_token_ids", "array", "CT"},
    {"audio", "object", "", "CT"},
    {"background", "boolean", "", "", "R"},
    {"bad_words", "string|array", "CT"},
    {"best_of", "integer", "CT"},
    {"betas", "array", "", "MN"},
    {"bootstrap_host", "string", "", "", "CTZ"},
    {"bootstrap_port", "integer", "", "", "CTZ"},
    {"bootstrap_room", "integer", "", "", "CTZ"},
    {"cache_control", "object", "", "MN"},
    {"cache_salt", "string", "CTEKSA"},
    {"chat_template", "string", "CZ"},
    {"chat_template_kwargs", "object", "CZ"},
    {"completion_window", "string", "J"},
    {"container", "string", "", "", "MN"},
    {"context", "array", "", "", "G"},
    {"context_management", "object", "", "MN", "R"},
    {"continue_final_message", "boolean", "CZ"},
    {"conversation", "string|object", "", "", "R"},
    {"custom_logit_processor", "string", "", "", "CTZ"},
    {"data_1", "string|array", "S"},
    {"data_2", "string|array", "S"},
    {"diagnostics", "object", "", "MN"},
    {"dimensions", "integer", "EB"},
    {"documents", "array", "CZSA"},
    {"ebnf", "string", "", "", "CTZ"},
    {"echo", "boolean", "T", "", "C"},
    {"encoding_format", "string", "E"},
    {"endpoint", "string", "J"},
    {"expires_after", "object", "U"},
    {"file", "binary", "U"},
    {"format", "object|string", "OG"},
    {"frequency_penalty", "number", "CT"},
    {"function_call", "string|object", "", "", "C"},
    {"functions", "array", "", "", "C"},
    {"grammar", "string", "", "", "CTZ"},
    {"guided_choice", "array", "CT"},
    {"guided_decoding_backend", "string", "", "CT"},
    {"guided_grammar", "string", "CT"},
    {"guided_json", "object|string|boolean", "CT"},
    {"guided_regex", "string", "CT"},
    {"guided_whitespace_pattern", "string", "", "", "CT"},
    {"ignore_eos", "boolean", "CT"},
    {"images", "array", "", "", "G"},
    {"include", "array", "", "R"},
    {"include_stop_str_in_output", "boolean", "CT"},
    {"inference_geo", "string", "", "MN"},
    {"input", "string|array", "REKB"},
    {"input_file_id", "string", "J"},
    {"instruction", "string", "SA"},
    {"instructions", "string", "R"},
    {"items", "string|array", "S"},
    {"json_schema", "object|string", "", "", "CTZ"},
    {"keep_alive", "string", "", "OGB"},
    {"kv_transfer_params", "object", "", "", "CTZ"},
    {"length_penalty", "number", "T"},
    {"logit_bias", "object", "CT"},
    {"logit_processors", "array", "", "", "CTZ"},
    {"logits_processors", "array", "", "", "CTZ"},
    {"logprob_token_ids", "array", "", "", "CTZ"},
    {"logprobs", "boolean", "C", "", "OG"},
    {"logprobs", "integer", "T"},
    {"max_chunks_per_doc", "integer", "", "A"},
    {"max_completion_tokens", "integer", "CT"},
    {"max_output_tokens", "integer", "R"},
    {"max_tokens", "integer", "CTMN"},
    {"max_tokens_per_doc", "integer", "", "A"},
    {"max_tool_calls", "integer", "", "R"},
    {"mcp_servers", "array", "", "", "MN"},
    {"messages", "array", "CMNZO"},
    {"metadata", "object", "J", "CTRMN"},
    {"min_p", "number", "CT"},
    {"min_tokens", "integer", "CT"},
    {"mm_processor_kwargs", "object", "", "EKSA"},
    {"modalities", "array", "C"},
    {"model", "string", "CTRMNEKSAZDOGB"},
    {"moderation", "object", "", "CTR"},
    {"n", "integer", "CT"},
    {"normalize", "boolean", "E"},
    {"options", "object", "OG", "B"},
    {"output_config", "object", "MN"},
    {"output_expires_after", "object", "J"},
    {"parallel_tool_calls", "boolean", "CR"},
    {"prediction", "object", "CT"},
    {"presence_penalty", "number", "CT"},
    {"previous_response_id", "string", "R"},
    {"priority", "integer", "CTEKSA"},
    {"prompt", "string|array", "T"},
    {"prompt", "string", "ZGB"},
    {"prompt", "object", "", "", "R"},
    {"prompt_cache_key", "string", "", "CTR"},
    {"prompt_cache_options", "object", "", "CTR"},
    {"prompt_cache_retention", "string", "", "CTR"},
    {"prompt_embeds", "string|array", "", "", "CTZ"},
    {"prompt_logprobs", "integer", "CT"},
    {"prompt_name", "string", "E"},
    {"purpose", "string", "U"},
    {"queries", "string|array", "S"},
    {"query", "string", "A"},
    {"raw", "boolean", "G"},
    {"reasoning", "object", "R"},
    {"reasoning_effort", "string", "CZ"},
    {"regex", "string", "", "", "CTZ"},
    {"repetition_penalty", "number", "CT"},
    {"request_id", "string", "", "EKSA"},
    {"response_format", "object", "CT"},
    {"return_documents", "boolean", "A"},
    {"return_token_ids", "boolean", "CT"},
    {"return_token_strs", "boolean", "Z"},
    {"return_tokens_as_token_ids", "boolean", "CT"},
    {"safety_identifier", "string", "", "CTR"},
    {"seed", "integer", "CT"},
    {"separate_reasoning", "boolean", "C"},
    {"service_tier", "string", "", "CTRMN"},
    {"skip_special_tokens", "boolean", "CT"},
    {"speculation", "object", "CT"},
    {"speed", "string", "", "MN"},
    {"stop", "string|array", "CT"},
    {"stop_sequences", "array", "MN"},
    {"stop_token_ids", "array", "CT"},
    {"store", "boolean", "R", "CT"},
    {"stream", "boolean", "CTRMNOG"},
    {"stream_options", "object", "CT", "R"},
    {"structural_tag", "object|string", "", "", "CTZ"},
    {"structured_outputs", "object", "CT"},
    {"suffix", "string", "TG"},
    {"system", "string|array", "MN"},
    {"system", "string", "G"},
    {"temperature", "number", "CTRMN"},
    {"template", "string", "", "", "G"},
    {"text", "object", "R"},
    {"text_1", "string|array", "S"},
    {"text_2", "string|array", "S"},
    {"think", "boolean|string", "OG"},
    {"thinking", "object", "MN"},
    {"tokens", "array", "D"},
    {"tool_choice", "string|object", "CR"},
    {"tool_choice", "object", "MN"},
    {"tools", "array", "CRMNZO"},
    {"top_k", "integer", "CTMN"},
    {"top_logprobs", "integer", "C", "", "ROG"},
    {"top_n", "integer", "A"},
    {"top_p", "number", "CTRMN"},
    {"truncate", "boolean", "B"},
    {"truncate_prompt_tokens", "integer", "CTEKSA"},
    {"truncation", "string", "R"},
    {"truncation_side", "string", "EKSA"},
    {"use_activation", "boolean", "EKSA"},
    {"use_beam_search", "boolean", "T", "", "CZ"},
    {"user", "string", "CTEKSA", "R"},
    {"verbosity", "string", "", "CT"},
    {"web_search_options", "object", "", "CT"},
};

// A field of one type, or of several.
json::object schema_of(const ApiField& field, FieldUse use) {
  if (field.types == "binary") return {{"type", {"string"}}, {"format", "binary"}};
  json::array types;
  for (std::string_view rest = field.types; !rest.empty();) {
    const size_t bar = rest.find('|');
    types.push_back(json::value(rest.substr(0, bar)));
    rest = bar == rest.npos ? std::string_view() : rest.substr(bar + 1);
  }
  json::object schema{{"type", std::move(types)}};
  if (field.types.find("array") != field.types.npos) schema["items"] = json::object();
  if (use == FieldUse::kIgnored) schema["description"] = "Accepted and ignored.";
  if (use == FieldUse::kRefused) schema["description"] = "Refused, unless it says nothing.";
  return schema;
}

json::object schema_of(const ApiRequest& request) {
  json::object properties;
  for (const ApiField& field : kFields) {
    const FieldUse use = field.use(request.letter);
    if (use != FieldUse::kUnknown) properties[field.name] = schema_of(field, use);
  }
  json::array required;
  for (const std::string_view name : request.required)
    if (!name.empty()) required.push_back(json::value(name));
  // null is the same as absent.
  if (!request.is_form)
    for (json::key_value_pair& property : properties)
      if (std::ranges::find(request.required, std::string_view(property.key())) == request.required.end()) property.value().as_object()["type"].as_array().push_back("null");
  json::object schema{{"type", "object"}, {"properties", std::move(properties)}};
  if (!required.empty()) schema["required"] = std::move(required);
  return schema;
}

json::object reference(std::string_view name) {
  return {{"$ref", "#/components/schemas/" + std::string(name)}};
}

json::object content_of(std::string_view type, json::object schema) {
  return {{type, {{"schema", std::move(schema)}}}};
}

json::object answers(std::string_view path) {
  json::object out{{"200", {{"description", "The answer; a stream of events where \"stream\" asks for one."},
                            {"content", {{"application/json", {{"schema", json::object()}}}, {"text/event-stream", {{"schema", json::object()}}}}}}},
                   {"default", {{"description", "What is wrong, and with which field."}, {"content", content_of("application/json", reference("Error"))}}}};
  if (path.starts_with("/v1/files") || path.starts_with("/v1/batches"))
    out["501"] = {{"description", "The server keeps no files: its setting files_folder names no folder."}, {"content", content_of("application/json", reference("Error"))}};
  return out;
}

// A request without a body. `{id}` in a path stands for what is asked of.
struct ApiAddress {
  std::string_view method, path, what;
  // Of the query.
  std::array<std::string_view, 4> parameters = {};
};
constexpr ApiAddress kAddresses[] = {
    {"get", "/v1/models", "The served model and its aliases."},
    {"get", "/v1/models/{id}", "One of them."},
    {"get", "/v1/responses/{id}", "A response that is kept."},
    {"delete", "/v1/responses/{id}", "Forgets a response."},
    {"get", "/v1/responses/{id}/input_items", "What it was asked."},
    {"post", "/v1/responses/{id}/cancel", "Refused: no response runs in the background."},
    {"get", "/v1/files", "The files that are kept.", {"after", "limit", "order", "purpose"}},
    {"get", "/v1/files/{id}", "What is known of a file."},
    {"delete", "/v1/files/{id}", "Forgets a file."},
    {"get", "/v1/files/{id}/content", "A file's content."},
    {"get", "/v1/batches", "The batches, the newest first.", {"after", "limit", "order"}},
    {"get", "/v1/batches/{id}", "How far a batch is."},
    {"post", "/v1/batches/{id}/cancel", "Ends a batch with the answers that it has."},
    {"get", "/tokenizer_info", "The tokenizer, as vLLM says it."},
    {"get", "/props", "The server, as llama.cpp says it."},
    {"get", "/slots", "What runs, as llama.cpp says it."},
    {"get", "/api/tags", "The served model, as Ollama says it."},
    {"get", "/api/ps", "The served model, as Ollama says it."},
    {"get", "/api/version", "The version, as Ollama says it."},
    {"get", "/health", "Whether requests are accepted."},
    {"get", "/live", "Whether the engine makes progress."},
    {"get", "/ready", "Whether requests are accepted."},
    {"get", "/ping", "Whether requests are accepted."},
    {"get", "/version", "The version."},
    {"get", "/metrics", "Prometheus text."},
    {"get", "/openapi.json", "This document."},
};

json::object operation(const ApiAddress& address) {
  json::array parameters;
  if (address.path.find("{id}") != address.path.npos) parameters.push_back({{"name", "id"}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}});
  for (const std::string_view name : address.parameters)
    if (!name.empty()) parameters.push_back({{"name", name}, {"in", "query"}, {"schema", {{"type", name == "limit" ? "integer" : "string"}}}});
  json::object out{{"summary", address.what}, {"responses", answers(address.path)}};
  if (!parameters.empty()) out["parameters"] = std::move(parameters);
  return out;
}

}  // namespace

std::span<const ApiRequest> api_requests() {
  return kRequests;
}

std::span<const ApiField> api_fields() {
  return kFields;
}

FieldUse ApiField::use(char request) const {
  if (honoured.find(request) != honoured.npos) return FieldUse::kHonoured;
  if (ignored.find(request) != ignored.npos) return FieldUse::kIgnored;
  return refused.find(request) != refused.npos ? FieldUse::kRefused : FieldUse::kUnknown;
}

std::string api_markdown() {
  std::string out = "| field |";
  std::string line = "|---|";
  for (const ApiRequest& request : kRequests) {
    out += " " + std::string(request.title) + " |";
    line += "---|";
  }
  out += "\n" + line + "\n";
  for (size_t i = 0; i < std::size(kFields); ++i) {
    const std::string_view name = kFields[i].name;
    if (i > 0 && kFields[i - 1].name == name) continue;
    out += "| `" + std::string(name) + "` |";
    for (const ApiRequest& request : kRequests) {
      FieldUse use = FieldUse::kUnknown;
      for (size_t row = i; row < std::size(kFields) && kFields[row].name == name && use == FieldUse::kUnknown; ++row)
        use = kFields[row].use(request.letter);
      constexpr const char* kWords[] = {" |", " honoured |", " ignored |", " refused |"};
      out += kWords[static_cast<int>(use)];
    }
    out += "\n";
  }
  return out;
}

std::string openapi_json(std::string_view version) {
  json::object schemas{{"Error", {{"type", "object"}, {"required", {"error"}}, {"properties", {{"error", {{"type", "object"}}}}}}}};
  json::object paths;
  for (const ApiRequest& request : kRequests) {
    schemas[request.name] = schema_of(request);
    for (const std::string_view path : request.paths) {
      if (path.empty()) continue;
      const std::string_view type = request.is_form ? "multipart/form-data" : "application/json";
      paths[path] = {{"post", {{"requestBody", {{"required", true}, {"content", content_of(type, reference(request.name))}}}, {"responses", answers(path)}}}};
    }
  }
  for (const ApiAddress& address : kAddresses) {
    json::value& methods = paths[address.path];
    if (methods.is_null()) methods = json::object();
    methods.as_object()[address.method] = operation(address);
  }
  const json::object document{{"openapi", "3.1.0"},
                              {"info", {{"title", "Serval"}, {"version", version}}},
                              {"paths", std::move(paths)},
                              {"components", {{"schemas", std::move(schemas)}}}};
  return json::serialize(document);
}

}  // namespace serval
