#include "server/openai/answer_format.h"

#include "server/answers/long_json.h"
#include "server/openai/token_list.h"

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

}  // namespace

void write_finish(JsonWriter& json, const Delta& delta, bool has_calls) {
  json.key("finish_reason");
  const char* finish = finish_name(delta.finish);
  if (has_calls && delta.finish == FinishReason::kStop) finish = "tool_calls";
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

void write_usage(JsonWriter& json, const Usage& usage) {
  json.key("usage").begin_object();
  json.member("prompt_tokens", usage.prompt_tokens);
  json.member("completion_tokens", usage.completion_tokens);
  json.member("total_tokens", usage.prompt_tokens + usage.completion_tokens);
  json.key("prompt_tokens_details").begin_object().member("cached_tokens", usage.cached_tokens).end_object();
  json.key("completion_tokens_details").begin_object().member("reasoning_tokens", usage.reasoning_tokens);
  if (usage.accepted_prediction_tokens) {
    json.member("accepted_prediction_tokens", *usage.accepted_prediction_tokens);
    json.member("rejected_prediction_tokens", *usage.rejected_prediction_tokens);
  }
  json.end_object();
  json.end_object();
}

void AnswerFormat::begin_answer(JsonWriter& json, const char* object) const {
  json.begin_object();
  json.member("id", context.id)
      .member("object", object)
      .member("created", context.created)
      .member("model", context.model);
}

void AnswerFormat::write_stream_usage(JsonWriter& json, int choice, int64_t num_tokens) const {
  if (!context.include_usage) return;
  json.key("usage");
  if (!context.continuous_usage) {
    json.null();
    return;
  }
  const auto prompt_tokens = static_cast<int64_t>(prompt_of(choice).token_ids.size());
  json.begin_object();
  json.member("prompt_tokens", prompt_tokens).member("completion_tokens", num_tokens);
  json.member("total_tokens", prompt_tokens + num_tokens);
  json.end_object();
}

// One entry per prompt token: null for the first, then {"id": {"logprob", "rank", "decoded_token"}} of the
// token and its rivals.
Pieces AnswerFormat::write_prompt_logprobs(std::string& out, JsonWriter& json, const ChoicePiece& piece) const {
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
      json.member("rank", rank).member("decoded_token", name_of_token(context.service->token_text(token)));
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

void AnswerFormat::usage_chunk(std::string& out, const Usage& usage) const {
  out += "data: ";
  JsonWriter json(out);
  begin_chunk(json);
  json.key("choices").begin_array().end_array();
  write_usage(json, usage);
  json.end_object();
  out += "\n\n";
}

int64_t AnswerFormat::text_advance(const ChoicePiece& piece) const {
  const TokenList tokens(context, echoed_logprobs(context, piece), piece.delta.logprobs);
  int64_t total = 0;
  for (size_t i = 0; i < tokens.size(); ++i) total += tokens.width(i);
  return total;
}

}  // namespace serval
