// Which compiled kernels this machine runs.
#pragma once

#include <string>
#include <vector>

#include "kernels/cpu/kernel_table.h"

namespace serval::cpu {

// isa: auto, or one of generic, avx2, avx512, avx512bf16. Throws std::runtime_error with a sentence when the
// processor (or the operating system, which must save the registers) lacks what was asked for.
const KernelTable& choose_kernels(const std::string& isa);

// Names of the tables this machine can run, weakest first.
std::vector<std::string> runnable_isas();

}  // namespace serval::cpu
