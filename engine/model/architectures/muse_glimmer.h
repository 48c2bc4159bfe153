// Muse Glimmer, text: Gemma's sandwich of norms over gated attention, norms without weights over the embedding and over
// heads, and rotations in the layers that have a window alone.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kMuseGlimmer;

}  // namespace serval
