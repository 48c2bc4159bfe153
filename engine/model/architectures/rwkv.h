// RWKV-4 (Peng et al. 2023): recurrences alone, two to a layer.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kRwkv;

}  // namespace serval
