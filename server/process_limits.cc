#include "server/process_limits.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "kernels/base/log.h"

namespace serval {
namespace {

// Listeners, event queues, model files.
constexpr rlim_t kBesideConnections = 256;

}  // namespace

void raise_descriptor_limit(int connections) {
  const rlim_t needed = static_cast<rlim_t>(connections) + kBesideConnections;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= needed) return;
  const rlim_t before = limit.rlim_cur;
  limit.rlim_cur = std::min(needed, limit.rlim_max);
  if (limit.rlim_cur > before && setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    log_warn("the limit of open descriptors cannot be raised",
             {{"limit", before}, {"needed", needed}, {"error", std::strerror(errno)}});
  } else if (limit.rlim_cur < needed) {
    log_warn(
        "the hard limit of open descriptors is too low for max_connections and grpc_max_connections; "
        "raise it, or lower these",
        {{"limit", limit.rlim_max}, {"needed", needed}});
  }
}

}  // namespace serval
