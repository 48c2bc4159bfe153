// DBRX: experts behind LayerNorms without biases.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kDbrx;

}  // namespace serval
