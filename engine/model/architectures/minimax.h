// MiniMax-01: lightning attention beside attention.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kMiniMax;

}  // namespace serval
