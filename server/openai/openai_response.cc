#include "server/openai/openai_response.h"

#include "server/answers/long_json.h"

namespace serval {
namespace {

void write_model(JsonWriter& json, const ModelInfo& model) {
  json.begin_object();
  json.member("id", model.id)
      .member("object", "model")
      .member("created", model.created)
      .member("owned_by", "serval");
  json.member("root", model.id).key("parent").null();
  json.member("max_model_len", model.max_model_len);
  json.key("permission").begin_array().begin_object();
  json.member("id", "modelperm-" + model.id)
      .member("object", "model_permission")
      .member("created", model.created);
  for (const char* allowed : {"allow_create_engine", "allow_fine_tuning", "is_blocking"})
    json.key(allowed).boolean(false);
  for (const char* allowed : {"allow_sampling", "allow_logprobs", "allow_search_indices", "allow_view"})
    json.key(allowed).boolean(true);
  json.member("organization", "*").key("group").null();
  json.end_object().end_array().end_object();
}

Pieces write_prompt(std::string& out, JsonWriter& json, const PromptInfo& prompt) {
  json.begin_object().key("prompt");
  SERVAL_WRITE_ALL(write_text(out, json, prompt.text));
  SERVAL_WRITE_ALL(write_ids(out, json, "prompt_token_ids", prompt.token_ids));
  json.end_object();
}

}  // namespace

std::string models_body(const std::vector<ModelInfo>& models) {
  std::string out;
  JsonWriter json(out);
  json.begin_object().member("object", "list").key("data").begin_array();
  for (const ModelInfo& model : models) write_model(json, model);
  json.end_array().end_object();
  return out;
}

std::string model_body(const ModelInfo& model) {
  std::string out;
  JsonWriter json(out);
  write_model(json, model);
  return out;
}

Pieces render_body(std::string& out, const std::vector<PromptInfo>& prompts) {
  JsonWriter json(out);
  if (prompts.size() == 1) {
    SERVAL_WRITE_ALL(write_prompt(out, json, prompts.front()));
    co_return;
  }
  json.begin_array();
  for (const PromptInfo& prompt : prompts) SERVAL_WRITE_ALL(write_prompt(out, json, prompt));
  json.end_array();
}

Pieces tokenize_body(std::string& out, const std::vector<TokenId>& ids, int max_model_len,
                     const InferenceService* names) {
  JsonWriter json(out);
  json.begin_object();
  json.member("count", static_cast<int64_t>(ids.size())).member("max_model_len", max_model_len);
  SERVAL_WRITE_ALL(write_ids(out, json, "tokens", ids));
  json.key("token_strs");
  if (names) {
    json.begin_array();
    for (const TokenId id : ids) {
      json.string(name_of_token(names->token_text(id)));
      if (is_piece(out)) co_yield PieceEnd{};
    }
    json.end_array();
  } else {
    json.null();
  }
  json.end_object();
}

Pieces detokenize_body(std::string& out, const std::string& text) {
  JsonWriter json(out);
  json.begin_object().key("prompt");
  SERVAL_WRITE_ALL(write_text(out, json, text));
  json.end_object();
}

}  // namespace serval
