// Ollama's addresses: /api/chat, /api/generate, /api/embed, /api/embeddings, /api/tags, /api/ps, /api/show, /api/version.
#pragma once

#include <string>
#include <vector>

#include "server/http/route_table.h"
#include "server/service/inference_service.h"

namespace serval {

// The service outlives the routes. strict: fields that are not known are refused.
std::vector<Route> ollama_routes(InferenceService& service, bool strict, const std::string& version);

}  // namespace serval
