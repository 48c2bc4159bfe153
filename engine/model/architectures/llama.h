// Llama, the pre-norm decoder with rotary grouped-query attention and a gated feed-forward that the others
// vary (Touvron et al. 2023), Mistral, which adds one window for all layers, and Mixtral, which is Mistral
// with routed experts. Ministral 3 is Mistral whose queries grow with the position; both are the text of Mistral 3.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kLlama, kMistral, kMixtral, kMinistral3, kMistral3, kMistral4, kMllama;

}  // namespace serval
