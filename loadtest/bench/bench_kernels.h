// `serval bench kernels`: what the machine can do right now (arithmetic, memory, hand-over between threads),
// and how close the kernels of the CPU backend come to it, measured in alternation in one run: on a shared
// machine only such ratios mean something.
#pragma once

#include <iosfwd>

#include "kernels/values.h"

namespace serval {

// Prints the roofs, each kernel against its roof, each inner loop against the best loop of its instruction
// set (kernel_shares.h), and law 1 (a row alone has the bits it has among 64) with its price, per instruction
// set. Returns the exit code: 0, or 1 when a bit differs.
int bench_kernels(const DeviceConfig& device, std::ostream& out);

}  // namespace serval
