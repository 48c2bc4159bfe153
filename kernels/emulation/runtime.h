// What tests may ask of the emulated device beyond kernels/cuda/runtime.h.
#pragma once

#include <cstddef>

namespace serval::simt {

// Aborts when somebody wrote beyond an allocation that still lives: each has guard bytes on both sides.
void check_guards();
size_t num_live_allocations();

}  // namespace serval::simt
