// Conversions between the floating-point types of checkpoints, for loading: round to nearest, ties to even,
// as IEEE 754 says.
#pragma once

#include <cstddef>

#include "kernels/tensor.h"

namespace serval {

// Converts `count` values; both types are floating-point and both ends are aligned for their type. May not
// overlap.
void convert(const void* from, DType from_type, void* to, DType to_type, size_t count);

// False when any value is NaN or infinite.
bool all_finite(const void* values, DType type, size_t count);

}  // namespace serval
