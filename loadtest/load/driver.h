// Sends a workload to an OpenAI-compatible or Serval gRPC endpoint and watches what comes back: one thread,
// thousands of streams. Traffic goes where the URL says and nowhere else, and ends by itself: by count, by
// time, by request.
#pragma once

#include <string>
#include <vector>

#include "loadtest/load/driver_options.h"
#include "loadtest/load/measure.h"
#include "loadtest/load/workload.h"

namespace serval::load {

struct DriverResult {
  std::string model;
  int64_t started_ns = 0;             // when the outcomes' time began, on the monotonic clock
  std::vector<Outcome> outcomes;      // in the workload's order
  std::vector<ServerSample> samples;  // empty when the server shows no such metrics
};

DriverResult drive(const DriverOptions& options, const std::vector<PlannedRequest>& workload);

}  // namespace serval::load
