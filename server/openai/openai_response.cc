#include "server/openai/openai_response.h"

#include <algorithm>
#include <unordered_set>

#include "engine/json/json_writer.h"
#include "kernels/base/utf8.h"

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

std::string prompt_token_name(const AnswerContext& context, TokenId token) {
  return context.tokens_as_ids ? "token_id:" + std::to_string(token)
                               : token_name(context.service->token_text(token));
}

// Where it is short, or all of it is wanted at once.
void write_all(Pieces pieces) {
  while (pieces.next()) {
  }
}

// Whether what was written so far should go out before more is.
bool is_piece(const std::string& out) {
  return out.size() >= kPieceBytes;
}

// All of what a writer in pieces writes, where it is one of several.
#define SERVAL_WRITE_ALL(pieces)                                 \
  for (Pieces part = (pieces); part.next();) co_yield PieceEnd { \
    }

Pieces write_ids(std::string& out, JsonWriter& json, std::string_view name, const std::vector<TokenId>& ids) {
  json.key(name).begin_array();
  for (const TokenId id : ids) {
    json.integer(id);
    if (is_piece(out)) co_yield PieceEnd{};
  }
  json.end_array();
}

// One string value, `a` and `b` joined.
Pieces write_text(std::string& out, JsonWriter& json, std::string_view a, std::string_view b = {}) {
  json.begin_string();
  for (std::string_view rest : {a, b}) {
    while (!rest.empty()) {
      size_t n = std::min(rest.size(), kPieceBytes / 2);
      // Not in the middle of a character.
      while (n < rest.size() && (static_cast<unsigned char>(rest[n]) & 0xC0) == 0x80) ++n;
      json.string_part(rest.substr(0, n));
      rest.remove_prefix(n);
      if (is_piece(out)) co_yield PieceEnd{};
    }
  }
  json.end_string();
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

Pieces write_chat_logprobs(std::string& out, JsonWriter& json, const AnswerContext& context,
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
    if (is_piece(out)) co_yield PieceEnd{};
  }
  json.end_array().key("refusal").null().end_object();
}

// Log-probabilities of a prompt (if any) and of output tokens after it, as one list: what completions'
// parallel arrays are made of.
class TokenList {
 public:
  TokenList(const AnswerContext& context, const PromptLogprobs* prompt,
            const std::vector<TokenLogprob>& output)
      : context_(context), prompt_(prompt), output_(output) {}

  size_t size() const { return num_prompt() + output_.size(); }
  // Nothing comes before a prompt's first token.
  bool has_logprob(size_t i) const { return i > 0 || num_prompt() == 0; }
  float logprob(size_t i) const {
    return i < num_prompt() ? prompt_->entries[i].logprob : output_[i - num_prompt()].logprob;
  }
  std::string name(size_t i) const {
    return i < num_prompt() ? prompt_token_name(context_, prompt_->entries[i].token)
                            : token_name(context_, output_[i - num_prompt()]);
  }
  int64_t width(size_t i) const {
    const int width = i < num_prompt() ? prompt_->entries[i].width : output_[i - num_prompt()].width;
    return width >= 0 ? width : static_cast<int64_t>(num_characters(bytes(i)));
  }
  // Calls fn(name, logprob) for the best, best first.
  template <class Fn>
  void for_top(size_t i, Fn fn) const {
    if (i < num_prompt()) {
      for (const TopLogprob& top : prompt_->top_of(i))
        fn(prompt_token_name(context_, top.token), top.logprob);
    } else {
      for (const TokenLogprob& top : output_[i - num_prompt()].top)
        fn(token_name(context_, top), top.logprob);
    }
  }

 private:
  size_t num_prompt() const { return prompt_ ? prompt_->entries.size() : 0; }
  std::string bytes(size_t i) const {
    return i < num_prompt() ? context_.service->token_text(prompt_->entries[i].token)
                            : output_[i - num_prompt()].bytes;
  }

  const AnswerContext& context_;
  const PromptLogprobs* const prompt_;
  const std::vector<TokenLogprob>& output_;
};

// What precedes the output in a completion's lists.
const PromptLogprobs* echoed_logprobs(const AnswerContext& context, const ChoicePiece& piece) {
  return context.echo ? piece.delta.prompt_logprobs.get() : nullptr;
}

// The k best and the token itself, by name; two tokens of one name (special ones can be) give one member.
void write_top_by_name(JsonWriter& json, const TokenList& tokens, size_t i) {
  std::unordered_set<std::string> names;
  json.begin_object();
  const auto write = [&](const std::string& name, float logprob) {
    if (names.insert(name).second) json.key(name).number(logprob);
  };
  tokens.for_top(i, write);
  write(tokens.name(i), tokens.logprob(i));
  json.end_object();
}

// Parallel arrays. `end`: the characters that the choice has after this piece: a token whose text a stop
// string cut off begins there at the latest.
Pieces write_completion_logprobs(std::string& out, JsonWriter& json, const TokenList tokens,
                                 int64_t text_offset, int64_t end) {
  json.begin_object();
  json.key("tokens").begin_array();
  for (size_t i = 0; i < tokens.size(); ++i) {
    json.string(tokens.name(i));
    if (is_piece(out)) co_yield PieceEnd{};
  }
  json.end_array().key("token_logprobs").begin_array();
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens.has_logprob(i) ? json.number(tokens.logprob(i)) : json.null();
    if (is_piece(out)) co_yield PieceEnd{};
  }
  json.end_array().key("top_logprobs").begin_array();
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens.has_logprob(i)) {
      write_top_by_name(json, tokens, i);
    } else {
      json.null();
    }
    if (is_piece(out)) co_yield PieceEnd{};
  }
  json.end_array().key("text_offset").begin_array();
  for (size_t i = 0; i < tokens.size(); ++i) {
    json.integer(std::min(text_offset, end));
    text_offset += tokens.width(i);
    if (is_piece(out)) co_yield PieceEnd{};
  }
  json.end_array().end_object();
}

// One entry per prompt token: null for the first, then {"id": {"logprob", "rank", "decoded_token"}} of the
// token and its rivals.
Pieces write_prompt_logprobs(std::string& out, JsonWriter& json, const AnswerContext& context,
                             const ChoicePiece& piece) {
  const PromptLogprobs* const list = piece.delta.prompt_logprobs.get();
  json.key("prompt_logprobs").begin_array();
  for (size_t i = 0; list && i < list->entries.size(); ++i) {
    if (i == 0) {
      json.null();
      continue;
    }
    const auto write = [&](TokenId token, float logprob, int rank) {
      json.key(std::to_string(token)).begin_object();
      json.key("logprob").number(logprob);
      json.member("rank", rank).member("decoded_token", token_name(context.service->token_text(token)));
      json.end_object();
    };
    const PromptLogprobs::Entry& entry = list->entries[i];
    json.begin_object();
    write(entry.token, entry.logprob, entry.rank);
    int rank = 0;
    for (const TopLogprob& top : list->top_of(i)) {
      ++rank;
      if (top.token != entry.token) write(top.token, top.logprob, rank);
    }
    json.end_object();
    if (is_piece(out)) co_yield PieceEnd{};
  }
  json.end_array();
}

// --- choices ---

Pieces write_logprobs(std::string& out, JsonWriter& json, const AnswerContext& context,
                      const ChoicePiece& piece) {
  json.key("logprobs");
  const Delta& delta = piece.delta;
  const PromptLogprobs* const echoed = echoed_logprobs(context, piece);
  if (!context.logprobs || (delta.logprobs.empty() && !echoed && delta.text.empty())) {
    json.null();
  } else if (context.chat) {
    SERVAL_WRITE_ALL(write_chat_logprobs(out, json, context, delta.logprobs));
  } else {
    const int64_t end =
        piece.text_offset + static_cast<int64_t>(num_characters(piece.echoed) + num_characters(delta.text));
    SERVAL_WRITE_ALL(
        write_completion_logprobs(out, json, {context, echoed, delta.logprobs}, piece.text_offset, end));
  }
}

// What vLLM adds to a completion's choice; for a chat, prompt_... stand at the top level (write_chat_prompt).
Pieces write_extras(std::string& out, JsonWriter& json, const AnswerContext& context,
                    const ChoicePiece& piece) {
  if (context.return_token_ids) {
    if (!context.chat && piece.first) {
      SERVAL_WRITE_ALL(
          write_ids(out, json, "prompt_token_ids", context.prompt_of(piece.delta.index).token_ids));
    }
    SERVAL_WRITE_ALL(write_ids(out, json, "token_ids", piece.delta.token_ids));
  }
  if (context.prompt_logprobs && !context.chat && piece.first)
    SERVAL_WRITE_ALL(write_prompt_logprobs(out, json, context, piece));
}

void begin_answer(JsonWriter& json, const AnswerContext& context, const char* object) {
  json.begin_object();
  json.member("id", context.id)
      .member("object", object)
      .member("created", context.created)
      .member("model", context.model);
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

Pieces write_prompt(std::string& out, JsonWriter& json, const PromptInfo& prompt) {
  json.begin_object().key("prompt");
  SERVAL_WRITE_ALL(write_text(out, json, prompt.text));
  SERVAL_WRITE_ALL(write_ids(out, json, "prompt_token_ids", prompt.token_ids));
  json.end_object();
}

}  // namespace

int64_t text_advance(const AnswerContext& context, const ChoicePiece& piece) {
  const TokenList tokens(context, echoed_logprobs(context, piece), piece.delta.logprobs);
  int64_t total = 0;
  for (size_t i = 0; i < tokens.size(); ++i) total += tokens.width(i);
  return total;
}

Pieces whole_answer(std::string& out, const AnswerContext& context, const std::vector<ChoicePiece>& choices,
                    Usage usage) {
  JsonWriter json(out);
  begin_answer(json, context, context.chat ? "chat.completion" : "text_completion");
  json.key("choices").begin_array();
  for (const ChoicePiece& piece : choices) {
    json.begin_object().member("index", piece.delta.index);
    if (context.chat) {
      json.key("message").begin_object().member("role", "assistant").key("content");
      SERVAL_WRITE_ALL(write_text(out, json, piece.delta.text));
      json.key("refusal").null().end_object();
    } else {
      json.key("text");
      SERVAL_WRITE_ALL(write_text(out, json, piece.echoed, piece.delta.text));
    }
    SERVAL_WRITE_ALL(write_logprobs(out, json, context, piece));
    write_finish(json, piece.delta);
    SERVAL_WRITE_ALL(write_extras(out, json, context, piece));
    json.end_object();
  }
  json.end_array();
  write_usage(json, usage);
  if (context.chat && !choices.empty()) {
    if (context.return_token_ids)
      SERVAL_WRITE_ALL(write_ids(out, json, "prompt_token_ids", context.prompts->front().token_ids));
    if (context.prompt_logprobs) SERVAL_WRITE_ALL(write_prompt_logprobs(out, json, context, choices.front()));
  }
  json.end_object();
}

void append_role_chunk(std::string& out, const AnswerContext& context, int index) {
  event(out, [&](JsonWriter& json) {
    begin_answer(json, context, chunk_object(context));
    json.key("choices").begin_array().begin_object().member("index", index);
    json.key("delta").begin_object().member("role", "assistant").member("content", "").end_object();
    json.key("logprobs").null().key("finish_reason").null();
    json.end_object().end_array();
    if (context.return_token_ids && index == 0)
      write_all(write_ids(out, json, "prompt_token_ids", context.prompts->front().token_ids));
    write_stream_usage(json, context, index, 0);
    json.end_object();
  });
}

Pieces first_chunk(std::string& out, const AnswerContext& context, const ChoicePiece& piece) {
  out += "data: ";
  JsonWriter json(out);
  begin_answer(json, context, chunk_object(context));
  json.key("choices").begin_array().begin_object().member("index", piece.delta.index);
  if (context.chat) {
    json.key("delta").begin_object();
    if (!piece.delta.text.empty()) json.member("content", piece.delta.text);
    json.end_object();
  } else {
    json.key("text");
    SERVAL_WRITE_ALL(write_text(out, json, piece.echoed, piece.delta.text));
  }
  SERVAL_WRITE_ALL(write_logprobs(out, json, context, piece));
  write_finish(json, piece.delta);
  SERVAL_WRITE_ALL(write_extras(out, json, context, piece));
  json.end_object().end_array();
  if (context.chat && context.prompt_logprobs && piece.first)
    SERVAL_WRITE_ALL(write_prompt_logprobs(out, json, context, piece));
  write_stream_usage(json, context, piece.delta.index, piece.num_tokens);
  json.end_object();
  out += "\n\n";
}

void append_chunk(std::string& out, const AnswerContext& context, const ChoicePiece& piece) {
  write_all(first_chunk(out, context, piece));
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
      json.string(token_name(names->token_text(id)));
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
