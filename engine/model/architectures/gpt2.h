// GPT (Radford et al. 2018) and GPT-2 (Radford et al. 2019): learned positions, LayerNorm, behind the residual and
// before the parts, a plain feed-forward, biases everywhere, and matrices that are stored transposed.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kGpt;
extern const Architecture kGpt2;

}  // namespace serval
