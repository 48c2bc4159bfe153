// Layers with a window that rotate among some that see everything and do not, and corrected experts (expert_fields.h) behind
// some dense layers: Trinity, K-EXAONE.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kAfmoe, kExaoneMoe;

}  // namespace serval
