// The parts of invariance_checks(), by kernel family.
#pragma once

#include <vector>

#include "tests/kernels/checks/check.h"

namespace serval::gpu {

std::vector<Check> row_invariance(Sizes sizes);
std::vector<Check> gemm_invariance(Sizes sizes);
std::vector<Check> expert_invariance(Sizes sizes);
std::vector<Check> attention_invariance(Sizes sizes);
std::vector<Check> sampler_invariance(Sizes sizes);

}  // namespace serval::gpu
