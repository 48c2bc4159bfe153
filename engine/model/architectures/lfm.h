// Liquid AI: LFM2.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kLfm2;
extern const Architecture kLfm2Moe, kLfm3;

}  // namespace serval
