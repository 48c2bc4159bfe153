// The rows of the route table that speak Anthropic's Messages over an InferenceService.
#pragma once

#include <vector>

#include "server/http/route_table.h"

namespace serval {

class InferenceService;

// `service` must outlive the server that gets the rows. `strict`: as parse_messages_request has it.
std::vector<Route> messages_routes(InferenceService& service, bool strict);

}  // namespace serval
