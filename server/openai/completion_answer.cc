// Completions: text_completion, whole and in chunks.
#include <algorithm>
#include <unordered_set>

#include "server/openai/answer_format.h"
#include "server/answers/long_json.h"
#include "server/openai/token_list.h"

namespace serval {
namespace {

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

class CompletionFormat final : public AnswerFormat {
 public:
  explicit CompletionFormat(AnswerContext answer_context) : AnswerFormat(std::move(answer_context), "text_completion") {}

  Pieces whole(std::string& out, const std::vector<ChoicePiece>& choices, Usage usage) const override {
    JsonWriter json(out);
    begin_answer(json, "text_completion");
    json.key("choices").begin_array();
    for (const ChoicePiece& piece : choices) {
      json.begin_object().member("index", piece.delta.index);
      SERVAL_WRITE_ALL(write_choice(out, json, piece));
      json.end_object();
    }
    json.end_array();
    write_usage(json, usage);
    json.end_object();
  }

  // By an empty piece, unless its first comes next.
  void introduce(std::string& out, int index, bool has_text) const override {
    if (has_text) return;
    ChoicePiece empty;
    empty.delta.index = index;
    empty.first = false;
    write_all(chunk(out, empty));
  }

  Pieces chunk(std::string& out, const ChoicePiece& piece) const override {
    out += "data: ";
    JsonWriter json(out);
    begin_chunk(json);
    json.key("choices").begin_array().begin_object().member("index", piece.delta.index);
    SERVAL_WRITE_ALL(write_choice(out, json, piece));
    json.end_object().end_array();
    write_stream_usage(json, piece.delta.index, piece.num_tokens);
    json.end_object();
    out += "\n\n";
  }

 private:
  // With what vLLM adds.
  Pieces write_choice(std::string& out, JsonWriter& json, const ChoicePiece& piece) const {
    const Delta& delta = piece.delta;
    json.key("text");
    SERVAL_WRITE_ALL(write_text(out, json, piece.echoed, delta.text));
    json.key("logprobs");
    const PromptLogprobs* const echoed = echoed_logprobs(context, piece);
    if (!context.logprobs || (delta.logprobs.empty() && !echoed && delta.text.empty())) {
      json.null();
    } else {
      const int64_t end =
          piece.text_offset + static_cast<int64_t>(num_characters(piece.echoed) + num_characters(delta.text));
      SERVAL_WRITE_ALL(
          write_completion_logprobs(out, json, {context, echoed, delta.logprobs}, piece.text_offset, end));
    }
    write_finish(json, delta);
    if (context.return_token_ids) {
      if (piece.first)
        SERVAL_WRITE_ALL(write_ids(out, json, "prompt_token_ids", prompt_of(delta.index).token_ids));
      SERVAL_WRITE_ALL(write_ids(out, json, "token_ids", delta.token_ids));
    }
    if (context.prompt_logprobs && piece.first) SERVAL_WRITE_ALL(write_prompt_logprobs(out, json, piece));
  }
};

}  // namespace

std::unique_ptr<AnswerFormat> completion_format(AnswerContext context) {
  return std::make_unique<CompletionFormat>(std::move(context));
}

}  // namespace serval
