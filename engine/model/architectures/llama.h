// Llama, the pre-norm decoder with rotary grouped-query attention and a gated feed-forward that the others
// vary (Touvron et al. 2023), and Mistral, which adds one window for all layers.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kLlama, kMistral;

}  // namespace serval
