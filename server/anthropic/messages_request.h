// From the JSON of an Anthropic Messages request to a GenerateRequest. Translation only, as server/openai's. Pure.
#pragma once

#include <string_view>

#include "kernels/base/status.h"
#include "server/service/inference_service.h"

namespace serval {

struct MessagesRequest {
  GenerateRequest generate;
  bool stream = false;
};

// /v1/messages. `counts_only`: the body of /v1/messages/count_tokens, which has no max_tokens. `strict`: fields that are not known are refused.
Result<MessagesRequest> parse_messages_request(std::string_view body, bool counts_only, bool strict);

}  // namespace serval
