// Nemotron 3 and 4 with Minitron (Parmar et al. 2024) and Jais 2: LayerNorm, squared ReLU without a gate, rotations.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kNemotron;
extern const Architecture kJais2;

}  // namespace serval
