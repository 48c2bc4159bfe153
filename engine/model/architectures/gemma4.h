// Gemma 4, text: Gemma 3's layers with plain norms, heads of another size in layers that see everything, whose values may
// be their keys, outputs scaled by a number of each layer; and of the small ones inputs of each layer, and last layers
// that read the keys and values of others.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kGemma4, kGemma4Composite, kGemma4Unified;

}  // namespace serval
