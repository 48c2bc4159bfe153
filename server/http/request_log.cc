#include "server/http/request_log.h"

#include <cstdio>
#include <string>

#include "kernels/base/log.h"

namespace serval {
namespace {

constexpr size_t kMaxPathBytes = 128;

std::string milliseconds(double seconds) {
  char text[32];
  return std::string(text, std::snprintf(text, sizeof text, "%.1f", seconds * 1e3));
}

std::string_view or_dash(std::string_view text) {
  return text.empty() ? "-" : text;
}

}  // namespace

// Always the same fields, in one order; "-" where there is nothing to say.
void log_request(const RequestEnd& end) {
  const RequestRecord* const r = end.generation ? &*end.generation : nullptr;
  const LogLevel level = end.quiet && end.code.empty() ? LogLevel::kDebug : LogLevel::kInfo;
  const auto count = [&](int RequestRecord::*field) { return r ? std::to_string(r->*field) : "-"; };
  const bool was_scheduled = r && r->queue_s > 0;
  const bool has_first = r && r->first_s > 0;
  log(level, "request",
      {{"method", or_dash(end.method)},
       {"path", or_dash(end.path.substr(0, kMaxPathBytes))},
       {"status", end.status},
       {"code", or_dash(end.code)},
       {"finish", !end.gone.empty() ? end.gone
                  : r               ? finished_reason(r->finish)
                                    : "-"},
       {"prompt_tokens", count(&RequestRecord::prompt_tokens)},
       {"output_tokens", count(&RequestRecord::output_tokens)},
       {"drafted", count(&RequestRecord::drafted)},
       {"accepted", count(&RequestRecord::accepted)},
       {"queue_ms", was_scheduled ? milliseconds(r->queue_s) : "-"},
       {"first_ms", has_first ? milliseconds(r->first_s) : "-"},
       {"total_ms", milliseconds(end.total_s)},
       {"key", end.key > 0 ? std::to_string(end.key) : "-"},
       {"id", or_dash(end.id)}});
}

}  // namespace serval
