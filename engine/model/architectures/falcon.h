// Falcon (Almazrouei et al. 2023), in its three layers: of 7B, of 40B and 180B, and with ALiBi (Falcon-RW).
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kFalcon;

}  // namespace serval
