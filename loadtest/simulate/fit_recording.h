// Fits a cost model to a server at work: what its engine recorded (`serval serve --record`) laid beside what
// the client saw of the same run (`serval bench --json`), both on one machine's monotonic clock. So the price
// of everything around the forward pass is in it: threads waking, HTTP, JSON, detokenising, the client
// itself.
#pragma once

#include <string>

#include "loadtest/simulate/cost_model.h"

namespace serval::load {

// The recording's last requests must be the report's, in order (a warm-up before them is fine). Throws
// std::runtime_error with a sentence when the two do not belong together or are too short.
CostModel fit_recording(const std::string& recording, const std::string& report);

}  // namespace serval::load
