// Command R (Cohere, and Cohere 2 with windows): both parts of a layer read one norm without a bias, logits are scaled,
// neighbouring dimensions rotate together.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kCohere;
extern const Architecture kCohere2;

}  // namespace serval
