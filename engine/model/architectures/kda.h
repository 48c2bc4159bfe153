// Hybrids of Kimi's delta attention and latent attention: Kimi Linear, Ling 3.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kKimiLinear;
extern const Architecture kBailingHybrid;

}  // namespace serval
