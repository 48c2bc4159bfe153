// Linear attention in the layout of flash-linear-attention's checkpoints: GLA and RetNet.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kGla, kRetNet;

}  // namespace serval
