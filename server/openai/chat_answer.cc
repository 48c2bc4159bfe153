// Chats: chat.completion, and the chunks of one.
#include <algorithm>

#include "server/openai/answer_format.h"
#include "server/answers/long_json.h"

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
      json.key("message").begin_object().member("role", "assistant");
      SERVAL_WRITE_ALL(write_message(out, json, piece));
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
    write_parts(json, piece);
    json.end_object();
    SERVAL_WRITE_ALL(write_rest(out, json, piece));
    json.end_object().end_array();
    if (context.prompt_logprobs && piece.first) SERVAL_WRITE_ALL(write_prompt_logprobs(out, json, piece));
    write_stream_usage(json, piece.delta.index, piece.num_tokens);
    json.end_object();
    out += "\n\n";
  }

 private:
  // Of a whole answer, what it says in text and parts; no text beside calls is null.
  Pieces write_message(std::string& out, JsonWriter& json, const ChoicePiece& piece) const {
    std::string content = piece.delta.text, reasoning;
    for (const MessagePart& part : piece.delta.parts) {
      if (part.kind == PartKind::kContent) content += part.text;
      if (part.kind == PartKind::kReasoning) reasoning += part.text;
    }
    json.key("content");
    if (content.empty() && piece.num_calls > 0) {
      json.null();
    } else {
      SERVAL_WRITE_ALL(write_text(out, json, content));
    }
    if (!reasoning.empty()) {
      for (const char* const name : {"reasoning_content", "reasoning"}) {
        json.key(name);
        SERVAL_WRITE_ALL(write_text(out, json, reasoning));
      }
    }
    if (piece.num_calls > 0) write_calls(json, piece, /*is_stream=*/false);
  }

  // Of an event, what is new.
  void write_parts(JsonWriter& json, const ChoicePiece& piece) const {
    bool has_calls = false;
    for (const MessagePart& part : piece.delta.parts) {
      if (part.kind == PartKind::kContent) json.member("content", part.text);
      if (part.kind == PartKind::kReasoning) json.member("reasoning_content", part.text).member("reasoning", part.text);
      has_calls |= part.kind == PartKind::kCall || part.kind == PartKind::kArguments;
    }
    if (has_calls) write_calls(json, piece, /*is_stream=*/true);
  }

  // An object for each call that this piece has something of. In a stream a call is named once.
  void write_calls(JsonWriter& json, const ChoicePiece& piece, bool is_stream) const {
    const std::vector<MessagePart>& parts = piece.delta.parts;
    int64_t index = piece.num_calls - std::ranges::count(parts, PartKind::kCall, &MessagePart::kind) - 1;
    json.key("tool_calls").begin_array();
    for (size_t i = 0; i < parts.size(); ++i) {
      const bool is_call = parts[i].kind == PartKind::kCall;
      if (!is_call && parts[i].kind != PartKind::kArguments) continue;
      json.begin_object();
      index += is_call ? 1 : 0;
      if (is_stream) json.member("index", index);
      if (is_call) json.member("id", parts[i].id).member("type", "function");
      json.key("function").begin_object();
      if (is_call) json.member("name", parts[i].text);
      std::string_view arguments = is_call ? std::string_view() : parts[i].text;
      if (is_call && i + 1 < parts.size() && parts[i + 1].kind == PartKind::kArguments) arguments = parts[++i].text;
      json.member("arguments", arguments).end_object().end_object();
    }
    json.end_array();
  }

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
    if (!context.logprobs || (delta.logprobs.empty() && delta.text.empty() && delta.parts.empty())) {
      json.null();
    } else {
      SERVAL_WRITE_ALL(write_tokens(out, json, delta.logprobs));
    }
    write_finish(json, delta, piece.num_calls > 0 && !context.names_call);
    if (context.return_token_ids) SERVAL_WRITE_ALL(write_ids(out, json, "token_ids", delta.token_ids));
  }
};

}  // namespace

std::unique_ptr<AnswerFormat> chat_format(AnswerContext context) {
  return std::make_unique<ChatFormat>(std::move(context));
}

}  // namespace serval
