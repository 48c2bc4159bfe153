// The rows of the route table that speak OpenAI (and vLLM's tokenize, detokenize and render) over an
// InferenceService.
#pragma once

#include <vector>

#include "server/http/route_table.h"
#include "server/openai/openai_request.h"

namespace serval {

class InferenceService;

// `service` must outlive the server that gets the rows.
std::vector<Route> openai_routes(InferenceService& service, const RequestOptions& options = {});

}  // namespace serval
