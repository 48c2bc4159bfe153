// `serval bench engine`: how fast scheduler, runner and kernels generate together, without HTTP, on a random
// bfloat16 model of 110 million weights made for the run in the temporary directory.
#pragma once

#include <iosfwd>

#include "kernels/values.h"

namespace serval {

// Prints decode speed at 1, 8 and 32 streams, their ratio, and prefill speed; returns the exit code.
int bench_engine(const DeviceConfig& device, std::ostream& out);

}  // namespace serval
