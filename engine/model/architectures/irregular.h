// Decoders whose layers are of unequal width: DeciLM and what Nemotron's search leaves of Llama (Bercovich et al. 2024), where
// layers differ in key-value heads and feed-forward width and may lack either part; OpenELM (Mehta et al. 2024), whose
// layers widen with depth.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kDeciLM;
extern const Architecture kOpenElm;

}  // namespace serval
