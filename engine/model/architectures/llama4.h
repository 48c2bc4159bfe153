// Llama 4: most layers attend within chunks, the others to everything and without a rotation; experts.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kLlama4, kLlama4Composite;

}  // namespace serval
