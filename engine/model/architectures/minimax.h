// MiniMax-01: lightning attention beside attention; MiniMax M3, whose attention an index thins out.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kMiniMax, kMiniMaxM3;

}  // namespace serval
