// `serval bench overhead`: what the harness itself costs and how well it tells time, against a server in this
// process that does nothing but send tokens and keep a record of when it did.
#pragma once

#include <iosfwd>

namespace serval {

// Prints the processor time of the driver's thread for each request and token, and how much later it stamps
// tokens than the server sent them. Returns the exit code.
int bench_overhead(std::ostream& out);

}  // namespace serval
