// ServeGen's way to keep production load: not requests but, for every window of time, how a client's requests
// arrive and how long they are.
#pragma once

#include <string>
#include <vector>

#include "loadtest/load/workload.h"

namespace serval::load {

// Draws one client's requests. CLIENT-trace.csv has rows of "window start (s), rate (1/s), cv of gaps,
// family, two parameters"; lengths come from CLIENT-dataset.json or .json.xz beside it, by the window they
// belong to:
// {"0": {"input_tokens": "{34: 0.001, ...}", "output_tokens": ...}, ...}. Throws std::runtime_error with a
// sentence.
std::vector<PlannedRequest> servegen_client(const std::string& path, const WorkloadOptions& options);
// The clients of all *-trace.csv in a folder together, in no order; each drawn on its own.
std::vector<PlannedRequest> servegen_folder(const std::string& path, const WorkloadOptions& options);

}  // namespace serval::load
