// A request that no socket brought: a route answers it on the caller's thread, and what its handler owns lives until then.
#pragma once

#include <functional>
#include <optional>

#include "server/http/http_config.h"
#include "server/http/http_types.h"
#include "server/http/route_table.h"

namespace serval {

// Waits for the whole answer, whose `source` is read into `body`; a stream's events are its body. `stopped` is asked some twenty times a second:
// once it is true the work ends as if its client had left, and there is no answer. What the handler throws, this throws.
// `hooks` hear of it what they hear of one that came by a socket.
std::optional<HttpResponse> call_route(const Route& route, HttpRequest request, const HttpHooks& hooks, const std::function<bool()>& stopped);

}  // namespace serval
