// Which compiled kernels this machine runs.
#pragma once

#include <string>
#include <vector>

#include "kernels/cpu/dot_table.h"
#include "kernels/cpu/kernel_table.h"

namespace serval::cpu {

// isa: auto, or one of generic, avx2, avx512, avx512bf16, avx512amx. Throws std::runtime_error with a sentence when the
// processor (or the operating system, which must save the registers) lacks what was asked for.
const KernelTable& choose_kernels(const std::string& isa);

// The products of bytes (dot_table.h): the fastest that this machine runs, of no wider registers than `kernels` use. All
// give the same bits.
const DotTable& choose_dots(const KernelTable& kernels);
// All that it runs, slowest first.
std::vector<const DotTable*> runnable_dots();

// Names of the tables this machine can run, weakest first.
std::vector<std::string> runnable_isas();

}  // namespace serval::cpu
