// From the JSON of a Responses request to a GenerateRequest and to what the answer repeats of it.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <string_view>
#include <vector>

#include "kernels/base/status.h"
#include "server/responses/response_store.h"
#include "server/service/inference_service.h"

namespace serval {

struct ResponsesRequest {
  GenerateRequest generate;
  bool stream = false;
  // The response is kept.
  bool store = true;
  // Fields that the answer repeats, in the dialect's order.
  boost::json::object repeated;
  boost::json::array input;
  // The messages of the chat without instructions.
  std::vector<ChatMessage> conversation;
};

// `store`: where previous_response_id is looked up, for `key`. `strict`: fields that are not known are refused.
Result<ResponsesRequest> parse_responses_request(std::string_view body, const ResponseStore& store, int key, bool strict);

}  // namespace serval
