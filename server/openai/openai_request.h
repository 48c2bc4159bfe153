// From the JSON of an OpenAI request to a GenerateRequest. Translation only: names, types and combinations of
// fields are checked here, values and ranges by the service's one validator. No I/O; pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/status.h"
#include "server/openai/request_options.h"
#include "server/service/inference_service.h"

namespace serval {

struct OpenAiRequest {
  GenerateRequest generate;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;  // in every event of a stream
  bool tokens_as_ids = false;     // log-probabilities name tokens "token_id:5"
  bool return_token_ids = false;
  // Of the choices of a prompt so many are told, the best; they have log-probabilities, which may be for this alone.
  std::optional<int64_t> num_best;
  bool hides_logprobs = false;
};

// /v1/chat/completions and /v1/completions; also the bodies of their .../render.
Result<OpenAiRequest> parse_chat_request(std::string_view body, const RequestOptions& options);
Result<OpenAiRequest> parse_completion_request(std::string_view body, const RequestOptions& options);

struct TokenizeRequest {
  GenerateRequest generate;  // as for .../render
  bool return_token_strs = false;
};
// {"prompt", "add_special_tokens"} or a chat: "messages", "tools" and what else read_chat reads.
Result<TokenizeRequest> parse_tokenize_request(std::string_view body, const RequestOptions& options);

struct DetokenizeRequest {
  std::string model;
  std::vector<int64_t> tokens;
};
Result<DetokenizeRequest> parse_detokenize_request(std::string_view body, const RequestOptions& options);

}  // namespace serval
