#include "server/openai_response.h"

#include <algorithm>
#include <unordered_set>

#include "kernels/base/utf8.h"
#include "server/json_writer.h"

namespace serval {
namespace {

const char* finish_name(FinishReason finish) {
  switch (finish) {
    case FinishReason::kStop:
    case FinishReason::kStopString:
      return "stop";
    case FinishReason::kLength:
      return "length";
    default:
      return nullptr;
  }
}

// A token that is half a character has no text of its own: it is spelled by its bytes, so that different
// tokens stay different.
std::string token_name(std::string_view bytes) {
  if (is_valid_utf8(bytes)) return std::string(bytes);
  static constexpr char kHex[] = "0123456789abcdef";
  std::string name = "bytes:";
  for (const char c : bytes) {
    const unsigned char byte = static_cast<unsigned char>(c);
    name += "\\x";
    name += kHex[byte >> 4];
    name += kHex[byte & 15];
  }
  return name;
}

std::string token_name(const AnswerContext& context, const TokenLogprob& token) {
  return context.tokens_as_ids ? "token_id:" + std::to_string(token.token) : token_name(token.bytes);
}

int64_t characters(std::string_view bytes) {
  return std::count_if(bytes.begin(), bytes.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

void write_ids(JsonWriter& json, std::string_view name, const std::vector<TokenId>& ids) {
  json.key(name).begin_array();
  for (const TokenId id : ids) json.integer(id);
  json.end_array();
}

void write_finish(JsonWriter& json, const Delta& delta) {
  json.key("finish_reason");
  const char* const finish = finish_name(delta.finish);
  finish ? json.string(finish) : json.null();
  if (!finish) return;
  json.key("stop_reason");
  if (const auto* text = std::get_if<std::string>(&delta.stop_reason)) {
    json.string(*text);
  } else if (const auto* id = std::get_if<TokenId>(&delta.stop_reason)) {
    json.integer(*id);
  } else {
    json.null();
  }
}

// In an event of a stream: null until the last, or what its choice has used so far.
void write_stream_usage(JsonWriter& json, const AnswerContext& context, int choice, int64_t num_tokens) {
  if (!context.include_usage) return;
  json.key("usage");
  if (!context.continuous_usage) {
    json.null();
    return;
  }
  const auto prompt_tokens = static_cast<int64_t>(context.prompt_of(choice).token_ids.size());
  json.begin_object();
  json.member("prompt_tokens", prompt_tokens).member("completion_tokens", num_tokens);
  json.member("total_tokens", prompt_tokens + num_tokens);
  json.end_object();
}

void write_usage(JsonWriter& json, const Usage& usage) {
  json.key("usage").begin_object();
  json.member("prompt_tokens", usage.prompt_tokens);
  json.member("completion_tokens", usage.completion_tokens);
  json.member("total_tokens", usage.prompt_tokens + usage.completion_tokens);
  json.key("prompt_tokens_details").begin_object().member("cached_tokens", usage.cached_tokens).end_object();
  json.key("completion_tokens_details").begin_object().member("reasoning_tokens", 0).end_object();
  json.end_object();
}

// --- log-probabilities ---

void write_chat_token(JsonWriter& json, const AnswerContext& context, const TokenLogprob& token) {
  json.member("token", token_name(context, token));
  json.key("logprob").number(token.logprob);
  json.key("bytes").begin_array();
  for (const char c : token.bytes) json.integer(static_cast<unsigned char>(c));
  json.end_array();
}

void write_chat_logprobs(JsonWriter& json, const AnswerContext& context,
                         const std::vector<TokenLogprob>& tokens) {
  json.begin_object().key("content").begin_array();
  for (const TokenLogprob& token : tokens) {
    json.begin_object();
    write_chat_token(json, context, token);
    json.key("top_logprobs").begin_array();
    for (const TokenLogprob& top : token.top) {
      json.begin_object();
      write_chat_token(json, context, top);
      json.end_object();
    }
    json.end_array().end_object();
  }
  json.end_array().key("refusal").null().end_object();
}

// The k best and the token itself, by name; two tokens of one name (special ones can be) give one member.
void write_top_by_name(JsonWriter& json, const AnswerContext& context, const TokenLogprob& token) {
  std::unordered_set<std::string> names;
  json.begin_object();
  const auto write = [&](const TokenLogprob& entry) {
    const std::string name = token_name(context, entry);
    if (names.insert(name).second) json.key(name).number(entry.logprob);
  };
  for (const TokenLogprob& top : token.top) write(top);
  write(token);
  json.end_object();
}

// Parallel arrays. `prompt` entries come first; the very first token of a prompt has no log-probability.
void write_completion_logprobs(JsonWriter& json, const AnswerContext& context,
                               const std::vector<TokenLogprob>& prompt,
                               const std::vector<TokenLogprob>& tokens, int64_t text_offset) {
  std::vector<const TokenLogprob*> entries;
  for (const TokenLogprob& token : prompt) entries.push_back(&token);
  for (const TokenLogprob& token : tokens) entries.push_back(&token);
  const size_t without_logprob = prompt.empty() ? entries.size() : 0;
  json.begin_object();
  json.key("tokens").begin_array();
  for (const TokenLogprob* token : entries) json.string(token_name(context, *token));
  json.end_array().key("token_logprobs").begin_array();
  for (size_t i = 0; i < entries.size(); ++i)
    i == without_logprob ? json.null() : json.number(entries[i]->logprob);
  json.end_array().key("top_logprobs").begin_array();
  for (size_t i = 0; i < entries.size(); ++i) {
    if (i == without_logprob) {
      json.null();
    } else {
      write_top_by_name(json, context, *entries[i]);
    }
  }
  json.end_array().key("text_offset").begin_array();
  for (const TokenLogprob* token : entries) {
    json.integer(text_offset);
    text_offset += characters(token->bytes);
  }
  json.end_array().end_object();
}

// One entry per prompt token: null for the first, then {"id": {"logprob", "rank", "decoded_token"}} of the
// token and its rivals.
void write_prompt_logprobs(JsonWriter& json, const std::vector<TokenLogprob>& tokens) {
  json.key("prompt_logprobs").begin_array();
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i == 0) {
      json.null();
      continue;
    }
    json.begin_object();
    const auto write = [&](const TokenLogprob& entry) {
      json.key(std::to_string(entry.token)).begin_object();
      json.key("logprob").number(entry.logprob);
      json.member("rank", entry.rank).member("decoded_token", token_name(entry.bytes));
      json.end_object();
    };
    write(tokens[i]);
    for (const TokenLogprob& top : tokens[i].top) {
      if (top.token != tokens[i].token) write(top);
    }
    json.end_object();
  }
  json.end_array();
}

// --- choices ---

void write_logprobs(JsonWriter& json, const AnswerContext& context, const ChoicePiece& piece) {
  json.key("logprobs");
  const Delta& delta = piece.delta;
  static const std::vector<TokenLogprob> kNone;
  const std::vector<TokenLogprob>& echoed = context.echo ? delta.prompt_logprobs : kNone;
  if (!context.logprobs || (delta.logprobs.empty() && echoed.empty() && delta.text.empty())) {
    json.null();
  } else if (context.chat) {
    write_chat_logprobs(json, context, delta.logprobs);
  } else {
    write_completion_logprobs(json, context, echoed, delta.logprobs, piece.text_offset);
  }
}

// What vLLM adds to a completion's choice; for a chat, prompt_... stand at the top level (write_chat_prompt).
void write_extras(JsonWriter& json, const AnswerContext& context, const ChoicePiece& piece) {
  if (context.return_token_ids) {
    if (!context.chat && piece.first)
      write_ids(json, "prompt_token_ids", context.prompt_of(piece.delta.index).token_ids);
    write_ids(json, "token_ids", piece.delta.token_ids);
  }
  if (context.prompt_logprobs && !context.chat && piece.first)
    write_prompt_logprobs(json, piece.delta.prompt_logprobs);
}

void write_chat_prompt(JsonWriter& json, const AnswerContext& context, const ChoicePiece& piece) {
  if (!context.chat || !piece.first) return;
  if (context.return_token_ids) write_ids(json, "prompt_token_ids", context.prompts.front().token_ids);
  if (context.prompt_logprobs) write_prompt_logprobs(json, piece.delta.prompt_logprobs);
}

void begin_answer(JsonWriter& json, const AnswerContext& context, const char* object) {
  json.begin_object();
  json.member("id", context.id)
      .member("object", object)
      .member("created", context.created)
      .member("model", context.model);
}

void write_completion_text(JsonWriter& json, const ChoicePiece& piece) {
  piece.echoed.empty() ? json.member("text", piece.delta.text)
                       : json.member("text", std::string(piece.echoed) + piece.delta.text);
}

const char* chunk_object(const AnswerContext& context) {
  return context.chat ? "chat.completion.chunk" : "text_completion";
}

// Appends one event whose JSON `write` produces in place.
template <class Write>
void event(std::string& out, Write write) {
  out += "data: ";
  JsonWriter json(out);
  write(json);
  out += "\n\n";
}

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

void write_prompt(JsonWriter& json, const PromptInfo& prompt) {
  json.begin_object().member("prompt", prompt.text);
  write_ids(json, "prompt_token_ids", prompt.token_ids);
  json.end_object();
}

}  // namespace

int64_t text_advance(const AnswerContext& context, const ChoicePiece& piece) {
  int64_t total = 0;
  if (context.echo) {
    for (const TokenLogprob& token : piece.delta.prompt_logprobs) total += characters(token.bytes);
  }
  for (const TokenLogprob& token : piece.delta.logprobs) total += characters(token.bytes);
  return total;
}

std::string whole_answer(const AnswerContext& context, const std::vector<ChoicePiece>& choices,
                         const Usage& usage) {
  std::string out;
  JsonWriter json(out);
  begin_answer(json, context, context.chat ? "chat.completion" : "text_completion");
  json.key("choices").begin_array();
  for (const ChoicePiece& piece : choices) {
    json.begin_object().member("index", piece.delta.index);
    if (context.chat) {
      json.key("message").begin_object();
      json.member("role", "assistant").member("content", piece.delta.text).key("refusal").null();
      json.end_object();
    } else {
      write_completion_text(json, piece);
    }
    write_logprobs(json, context, piece);
    write_finish(json, piece.delta);
    write_extras(json, context, piece);
    json.end_object();
  }
  json.end_array();
  write_usage(json, usage);
  if (!choices.empty()) write_chat_prompt(json, context, choices.front());
  json.end_object();
  return out;
}

void append_role_chunk(std::string& out, const AnswerContext& context, int index) {
  event(out, [&](JsonWriter& json) {
    begin_answer(json, context, chunk_object(context));
    json.key("choices").begin_array().begin_object().member("index", index);
    json.key("delta").begin_object().member("role", "assistant").member("content", "").end_object();
    json.key("logprobs").null().key("finish_reason").null();
    json.end_object().end_array();
    if (context.return_token_ids && index == 0)
      write_ids(json, "prompt_token_ids", context.prompts.front().token_ids);
    write_stream_usage(json, context, index, 0);
    json.end_object();
  });
}

void append_chunk(std::string& out, const AnswerContext& context, const ChoicePiece& piece) {
  event(out, [&](JsonWriter& json) {
    begin_answer(json, context, chunk_object(context));
    json.key("choices").begin_array().begin_object().member("index", piece.delta.index);
    if (context.chat) {
      json.key("delta").begin_object();
      if (!piece.delta.text.empty()) json.member("content", piece.delta.text);
      json.end_object();
    } else {
      write_completion_text(json, piece);
    }
    write_logprobs(json, context, piece);
    write_finish(json, piece.delta);
    write_extras(json, context, piece);
    json.end_object().end_array();
    if (context.chat && context.prompt_logprobs && piece.first)
      write_prompt_logprobs(json, piece.delta.prompt_logprobs);
    write_stream_usage(json, context, piece.delta.index, piece.num_tokens);
    json.end_object();
  });
}

void append_usage_chunk(std::string& out, const AnswerContext& context, const Usage& usage) {
  event(out, [&](JsonWriter& json) {
    begin_answer(json, context, chunk_object(context));
    json.key("choices").begin_array().end_array();
    write_usage(json, usage);
    json.end_object();
  });
}

void append_event(std::string& out, std::string_view data) {
  out += "data: ";
  out += data;
  out += "\n\n";
}

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

std::string render_body(const std::vector<PromptInfo>& prompts) {
  std::string out;
  JsonWriter json(out);
  if (prompts.size() == 1) {
    write_prompt(json, prompts.front());
    return out;
  }
  json.begin_array();
  for (const PromptInfo& prompt : prompts) write_prompt(json, prompt);
  json.end_array();
  return out;
}

std::string tokenize_body(const PromptInfo& prompt, int max_model_len,
                          const std::vector<std::string>* token_strs) {
  std::string out;
  JsonWriter json(out);
  json.begin_object();
  json.member("count", static_cast<int64_t>(prompt.token_ids.size())).member("max_model_len", max_model_len);
  write_ids(json, "tokens", prompt.token_ids);
  json.key("token_strs");
  if (token_strs) {
    json.begin_array();
    for (const std::string& bytes : *token_strs) json.string(token_name(bytes));
    json.end_array();
  } else {
    json.null();
  }
  json.end_object();
  return out;
}

std::string detokenize_body(std::string_view text) {
  std::string out;
  JsonWriter json(out);
  json.begin_object().member("prompt", text).end_object();
  return out;
}

}  // namespace serval
