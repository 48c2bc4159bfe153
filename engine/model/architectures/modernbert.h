// ModernBERT (Warner et al. 2024): an encoder of Llama's parts, norms before them and no biases, whose layers see all of a text or
// what stands near, to both sides.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kModernBert;

}  // namespace serval
