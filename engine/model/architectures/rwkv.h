// RWKV-4 (Peng et al. 2023) and RWKV-7 (Peng et al. 2025): recurrences alone, two to a layer.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kRwkv, kRwkv7;

}  // namespace serval
