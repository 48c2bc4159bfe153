// Ling and Ring of the first two generations.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kBailingMoe, kBailingMoeV2;

}  // namespace serval
