// OLMo: Llama whose norms have no weights; OLMo 2: norms behind the parts, and one over all of q and all of k;
// OLMo 3: windows and a rotation of their own in most layers.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kOlmo, kOlmo2, kOlmo3, kOlmoe;

}  // namespace serval
