#include "server/openai/answer_context.h"

#include "server/answers/long_json.h"

namespace serval {

std::string token_name(const AnswerContext& context, const TokenLogprob& token) {
  return context.tokens_as_ids ? "token_id:" + std::to_string(token.token) : name_of_token(token.bytes);
}

std::string prompt_token_name(const AnswerContext& context, TokenId token) {
  return context.tokens_as_ids ? "token_id:" + std::to_string(token)
                               : name_of_token(context.service->token_text(token));
}

}  // namespace serval
