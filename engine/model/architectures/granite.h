// Granite 3: Llama with multipliers of the embedding, the scores, what parts add, and the logits.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kGranite, kGraniteMoe, kGraniteMoeShared;

}  // namespace serval
