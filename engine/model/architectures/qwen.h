// Qwen 2 and 2.5: Llama with biases on q, k and v, and windows that may differ between layers. Qwen 3: a norm
// over every head of q and k instead of the biases. Of those that read pictures too the text is read.
// Either with routed experts.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kQwen1;
extern const Architecture kQwen2, kQwen3, kQwen2Moe, kQwen3Moe, kQwen2Vl, kQwen25Vl, kQwen3Vl, kQwen3VlMoe;

}  // namespace serval
