// Choosing the best of many scores.
#pragma once

#include <cstdint>

namespace serval::cpu {

// Sets the bits of the top_k largest of `count` scores, of equal ones the first.
void choose_best(const float* scores, int count, int top_k, uint64_t* chosen);

}  // namespace serval::cpu
