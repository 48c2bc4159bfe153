// Families that differ from Llama by a rule or two.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kApertus, kArcee, kErnie45, kHelium, kSeedOss, kSmolLm3, kHunYuanDense, kHunYuanMoe, kExaone4, kMinistral,
    kCwm;

}  // namespace serval
