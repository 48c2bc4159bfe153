// Layers of a selective state space and nothing else: Mamba, Mamba 2, Falcon-Mamba.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kMamba;
extern const Architecture kMamba2;
extern const Architecture kFalconMamba;

}  // namespace serval
