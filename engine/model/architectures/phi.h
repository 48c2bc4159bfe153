// Phi-1 and 2 (Gunasekar et al. 2023): both parts of a layer read one LayerNorm, a part of each head rotates. Persimmon:
// the same in turn, with LayerNorms of heads. Phi-3 and
// Phi-4-mini: Llama with fused projections, one window for all layers, a rotation of part of a head and, in the models
// for long contexts, one whose frequencies are stretched by factors of their own (longrope).
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kPhi;
extern const Architecture kPhi3;
extern const Architecture kPhiMoe;
extern const Architecture kPersimmon;

}  // namespace serval
