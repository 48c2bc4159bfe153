// StableLM 3B and 2 (Bellagente et al. 2024): LayerNorm around gated layers, a part of each head rotated.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kStableLm;

}  // namespace serval
