// Vectors and scores of texts over HTTP: /v1/embeddings, /pooling, /classify, /v1/score, /v1/rerank and the other
// addresses that clients know them by.
#pragma once

#include <vector>

#include "server/http/route_table.h"
#include "server/openai/openai_request.h"
#include "server/service/inference_service.h"

namespace serval {

// The service outlives the routes.
std::vector<Route> pooling_routes(InferenceService& service, const RequestOptions& options);

}  // namespace serval
