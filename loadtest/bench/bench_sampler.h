// What drawing a token costs on the CPU: one row of logits, one thread.
#pragma once

#include <iosfwd>

#include "kernels/cpu/kernel_table.h"

namespace serval {

// Rows of a vocabulary of 152 thousand, by sampling parameters and by length of history, for a person to
// read.
void bench_sampler(const cpu::KernelTable& kernels, std::ostream& out);

}  // namespace serval
