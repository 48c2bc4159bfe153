// InternLM 2 and 2.5 (Cai et al. 2024): Llama with a fused projection by heads and names of its own.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kInternLm2;

}  // namespace serval
