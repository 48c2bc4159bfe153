// RecurrentGemma: recurrent blocks of Griffin, and attention with a window.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kRecurrentGemma;

}  // namespace serval
