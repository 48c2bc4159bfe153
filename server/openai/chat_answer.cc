// Chats: chat.completion, and the chunks of one.
#include "server/openai/answer_format.h"
#include "server/openai/long_json.h"

namespace serval {
namespace {

class ChatFormat final : public AnswerFormat {
 public:
  explicit ChatFormat(AnswerContext answer_context) : AnswerFormat(std::move(answer_context), "chat.completion.chunk") {}

  Pieces whole(std::string& out, const std::vector<ChoicePiece>& choices, Usage usage) const override {
    JsonWriter json(out);
    begin_answer(json, "chat.completion");
    json.key("choices").begin_array();
    for (const ChoicePiece& piece : choices) {
      json.begin_object().member("index", piece.delta.index);
      json.key("message").begin_object().member("role", "assistant").key("content");
      SERVAL_WRITE_ALL(write_text(out, json, piece.delta.text));
      json.key("refusal").null().end_object();
      SERVAL_WRITE_ALL(write_rest(out, json, piece));
      json.end_object();
    }
    json.end_array();
    write_usage(json, usage);
    if (!choices.empty()) {
      if (context.return_token_ids)
        SERVAL_WRITE_ALL(write_ids(out, json, "prompt_token_ids", prompts->front().token_ids));
      if (context.prompt_logprobs) SERVAL_WRITE_ALL(write_prompt_logprobs(out, json, choices.front()));
    }
    json.end_object();
  }

  // With its role.
  void introduce(std::string& out, int index, bool) const override {
    out += "data: ";
    JsonWriter json(out);
    begin_chunk(json);
    json.key("choices").begin_array().begin_object().member("index", index);
    json.key("delta").begin_object().member("role", "assistant").member("content", "").end_object();
    json.key("logprobs").null().key("finish_reason").null();
    json.end_object().end_array();
    if (context.return_token_ids && index == 0)
      write_all(write_ids(out, json, "prompt_token_ids", prompts->front().token_ids));
    write_stream_usage(json, index, 0);
    json.end_object();
    out += "\n\n";
  }

  Pieces chunk(std::string& out, const ChoicePiece& piece) const override {
    out += "data: ";
    JsonWriter json(out);
    begin_chunk(json);
    json.key("choices").begin_array().begin_object().member("index", piece.delta.index);
    json.key("delta").begin_object();
    if (!piece.delta.text.empty()) json.member("content", piece.delta.text);
    json.end_object();
    SERVAL_WRITE_ALL(write_rest(out, json, piece));
    json.end_object().end_array();
    if (context.prompt_logprobs && piece.first) SERVAL_WRITE_ALL(write_prompt_logprobs(out, json, piece));
    write_stream_usage(json, piece.delta.index, piece.num_tokens);
    json.end_object();
    out += "\n\n";
  }

 private:
  void write_token(JsonWriter& json, const TokenLogprob& token) const {
    json.member("token", token_name(context, token));
    json.key("logprob").number(token.logprob);
    json.key("bytes").begin_array();
    for (const char c : token.bytes) json.integer(static_cast<unsigned char>(c));
    json.end_array();
  }

  Pieces write_tokens(std::string& out, JsonWriter& json, const std::vector<TokenLogprob>& tokens) const {
    json.begin_object().key("content").begin_array();
    for (const TokenLogprob& token : tokens) {
      json.begin_object();
      write_token(json, token);
      json.key("top_logprobs").begin_array();
      for (const TokenLogprob& top : token.top) {
        json.begin_object();
        write_token(json, top);
        json.end_object();
      }
      json.end_array().end_object();
      if (is_piece(out)) co_yield PieceEnd{};
    }
    json.end_array().key("refusal").null().end_object();
  }

  // Of a choice, what follows its text; what vLLM adds of the prompt stands at the answer's top level.
  Pieces write_rest(std::string& out, JsonWriter& json, const ChoicePiece& piece) const {
    const Delta& delta = piece.delta;
    json.key("logprobs");
    if (!context.logprobs || (delta.logprobs.empty() && delta.text.empty())) {
      json.null();
    } else {
      SERVAL_WRITE_ALL(write_tokens(out, json, delta.logprobs));
    }
    write_finish(json, delta);
    if (context.return_token_ids) SERVAL_WRITE_ALL(write_ids(out, json, "token_ids", delta.token_ids));
  }
};

}  // namespace

std::unique_ptr<AnswerFormat> chat_format(AnswerContext context) {
  return std::make_unique<ChatFormat>(std::move(context));
}

}  // namespace serval
