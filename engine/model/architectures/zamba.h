// Zamba 1 and 2 (Glorioso et al. 2024): layers of Mamba, cut into heads, or of Mamba 2, before some of which stands a block
// that several share.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kZamba, kZamba2;

}  // namespace serval
