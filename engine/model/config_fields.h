// Bounds of a model folder's configuration files, which are read through Fields. Private to engine/model.
#pragma once

#include <cstddef>

#include "engine/json/fields.h"

namespace serval {

inline constexpr size_t kMaxConfigBytes = size_t{4} << 20;
// A limit far above any published vocabulary and far below where a product with it leaves 63 bits.
inline constexpr int kMaxVocab = 1 << 22;

}  // namespace serval
