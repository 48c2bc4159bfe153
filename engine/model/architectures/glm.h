// GLM-4: Llama with biases on q, k and v, half of a head rotated, in pairs of neighbours, and gate and up as one
// tensor; those of April 2025 (Glm4) have norms behind the parts as well, as the
// text of those with pictures (Glm4v) does.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kGlm, kGlm4, kGlm4v;

}  // namespace serval
