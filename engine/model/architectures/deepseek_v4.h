// DeepSeek V4: attention to a window and to compressed keys, residuals that every part mixes, experts that the first layers
// give to tokens by a table.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kDeepseekV4;

}  // namespace serval
