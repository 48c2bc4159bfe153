// gpt-oss: Mixtral with sinks in the softmax of its attention, windows in every other layer, and clamped experts
// with biases, stored as one tensor of all.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kGptOss;

}  // namespace serval
