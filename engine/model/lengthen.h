// A model stretched beyond the context it was made for, as the settings ask (engine/long_attention.h).
#pragma once

#include "engine/model/model_spec.h"

namespace serval {

// Throws std::runtime_error with a sentence where the model's attention is of a kind that cannot be stretched, or the
// settings leave nothing to gain.
ModelSpec lengthened(ModelSpec spec, const LongAttention& settings);

}  // namespace serval
