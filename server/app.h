// The composition root: constructs everything top to bottom and takes it down in reverse. The only file that
// sees the concrete types of all layers.
#pragma once

#include <string>

#include "server/config.h"
#include "server/stop_signals.h"

namespace serval {

// Runs `serval serve` until a signal: the first drains (before the server is ready it ends at once), a second
// ends what still runs. Throws std::runtime_error with a sentence when it cannot start.
void serve(const std::string& model, ServerConfig config, StopSignals& signals);

// `serval plan`: the memory plan as a table, and what fits into the memory that is there. Reads the folder as
// serve() does, of the weights the headers alone, and throws what serve() would throw.
std::string plan_text(const std::string& model, ServerConfig config);

// `serval quantize`: the model's folder, its layers' matrices rounded, as the folder `out` (engine/model/quantise_folder.h).
// text: a file whose text scales are chosen by; empty: none. Progress goes to the log.
void quantize(const std::string& model, const std::string& out, const std::string& format, const std::string& text);

}  // namespace serval
