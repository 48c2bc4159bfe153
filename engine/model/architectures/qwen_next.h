// Hybrids of gated delta nets and attention: Qwen3.5, OLMo Hybrid.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kQwen3Next;
extern const Architecture kQwen35;
extern const Architecture kQwen35Composite;
extern const Architecture kQwen35Moe;
extern const Architecture kQwen35MoeComposite;
extern const Architecture kOlmoHybrid;

}  // namespace serval
