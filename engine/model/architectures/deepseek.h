// DeepSeek V2 and V3, and who took their layers over (Kimi K2, GLM-4.7-Flash): latent attention, and behind some
// dense layers experts beside one that all rows share.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kDeepseekV32, kGlmMoeDsa, kDeepseekV2, kDeepseekV3, kKimiK25, kGlm4MoeLite, kMiniCpm3;

}  // namespace serval
