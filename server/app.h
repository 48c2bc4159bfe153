// The composition root: constructs everything top to bottom and takes it down in reverse. The only file that
// sees the concrete types of all layers.
#pragma once

#include <string>

#include "server/config.h"

namespace serval {

// Runs `serval serve` until a signal; returns the exit code. Throws std::runtime_error with a sentence when
// it cannot start. Blocks SIGINT and SIGTERM in every thread and waits for them itself: the first drains, a
// second ends at once.
int serve(const std::string& model, ServerConfig config);

// `serval plan`: the memory plan as a table, from the configuration files alone.
std::string plan_text(const std::string& model, ServerConfig config);

}  // namespace serval
