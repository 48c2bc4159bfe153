// `serval bench engine`: how fast scheduler, runner and kernels generate together, without HTTP, on a random
// bfloat16 model of 110 million weights made for the run in the temporary directory.
#pragma once

#include <iosfwd>

#include "engine/config.h"

namespace serval {

// Prints decode speed at 1, 8 and 32 streams, their ratio, and prefill speed; returns the exit code. Of the
// settings, device and quantize count; the model as it is and the quantised one are measured in turns.
int bench_engine(const EngineConfig& settings, std::ostream& out);

}  // namespace serval
