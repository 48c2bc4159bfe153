// The rows of the route table that speak OpenAI's Responses over an InferenceService.
#pragma once

#include <cstddef>
#include <vector>

#include "server/http/route_table.h"

namespace serval {

class InferenceService;

struct ResponsesOptions {
  // Fields that are not known are refused.
  bool strict = false;
  // What all kept responses may take together; 0: none is kept.
  size_t max_stored_bytes = size_t{64} << 20;
};

// `service` must outlive the server that gets the rows.
std::vector<Route> responses_routes(InferenceService& service, const ResponsesOptions& options);

}  // namespace serval
