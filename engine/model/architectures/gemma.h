// Gemma 3, text: norms before and after each part that store what is above 1, scaled embeddings, norms over
// the heads of q and k, and layers with a window between layers without one, each kind with its own rotation.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kGemma3;

}  // namespace serval
