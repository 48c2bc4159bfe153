// Bounds of a model folder's configuration files, which are read through Fields. Private to engine/model.
#pragma once

#include <cstddef>

#include "engine/json/fields.h"

namespace serval {

inline constexpr size_t kMaxConfigBytes = size_t{4} << 20;
// Limits far above any published model and far below where a product of two of them leaves 63 bits.
inline constexpr int kMaxVocab = 1 << 22;
inline constexpr int kMaxHidden = 1 << 16;
inline constexpr int kMaxIntermediate = 1 << 19;
inline constexpr int kMaxLayers = 1024;
inline constexpr int kMaxHeads = 1024;
inline constexpr int kMaxHeadDim = 512;
inline constexpr int kMaxLatentKey = 576;  // of latent attention, whose only head is the latent
inline constexpr int kMaxPositions = 1 << 24;

}  // namespace serval
