// GPT-NeoX (Black et al. 2022): the parts of a layer side by side, each with a norm, a part of each head rotated.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kGptNeox;

}  // namespace serval
