// Gemma 3n: several residual streams, a residual of low rank, and inputs of each layer.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kGemma3n, kGemma3nComposite;

}  // namespace serval
