// One generation on its way to one HTTP client: starts it, turns its deltas into a whole answer or a stream
// of events in the order the clients expect, and ends it when the client leaves. Runs on the connection's
// strand, except where said.
#pragma once

#include <memory>

#include "server/http/http_exchange.h"
#include "server/openai/openai_request.h"
#include "server/service/inference_service.h"

namespace serval {

// Text pool. Answers `exchange` with whatever comes of `request`; an error of the service becomes its status.
void run_generation(InferenceService& service, const std::shared_ptr<HttpExchange>& exchange,
                    OpenAiRequest request);

}  // namespace serval
