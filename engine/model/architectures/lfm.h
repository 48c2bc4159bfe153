// Liquid AI: LFM2.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kLfm2;
extern const Architecture kLfm2Moe;

}  // namespace serval
