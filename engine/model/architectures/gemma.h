// Gemma 2 and 3, text: norms before and after each part that store what is above 1, scaled embeddings, and
// layers with a window between layers without one. Gemma 2 caps scores and logits; Gemma 3 has norms over the
// heads of q and k, and a rotation for each kind of layer; of its composites with images the text is read.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kGemma, kGemma2, kGemma3, kGemma3Composite, kVaultGemma;

}  // namespace serval
