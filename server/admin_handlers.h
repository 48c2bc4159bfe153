// The rows of the route table for whoever runs the server: liveness, readiness, metrics, version. None of
// them asks the engine anything that would cost it time.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "server/http/route_table.h"

namespace serval {

class InferenceService;

// `metrics`: the Prometheus text, any thread. `service` must outlive the server that gets the rows.
// /live is 200 while the engine makes progress or has nothing to do; /ready while a request would be
// accepted; /health and /ping when both are true. The first three answer without a key, so that probes need
// none.
std::vector<Route> admin_routes(InferenceService& service, std::function<std::string()> metrics,
                                std::string version);

}  // namespace serval
