// GPT-Neo (Black et al. 2021): GPT-2 with windows in every other layer, whose scores are not scaled.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kGptNeo;

}  // namespace serval
