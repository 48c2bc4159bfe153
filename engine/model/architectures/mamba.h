// Mamba: layers of a selective state space and nothing else (Gu and Dao 2023).
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kMamba;

}  // namespace serval
