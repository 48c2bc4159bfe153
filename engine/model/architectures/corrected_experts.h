// Families with plain attention whose experts are chosen as DeepSeek-V3's are, by sigmoids and a correction:
// GLM-4.5 and 4.6, dots.llm1, MiniMax M2, Hy3; or by probabilities and a correction: ERNIE 4.5.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kGlm4Moe, kDots1, kMiniMaxM2, kMimoV2, kErnieMoe, kHy3, kSolarOpen;

}  // namespace serval
