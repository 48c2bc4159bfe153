// Models that read pictures or sound with a tower of their own and text with one of the usual decoders, which text_config names.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kLlava, kLlavaNext, kLlavaOnevision, kAyaVision, kVoxtral, kQwen2Audio, kInternVl, kIdefics3, kSmolVlm;

}  // namespace serval
