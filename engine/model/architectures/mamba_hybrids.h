// Mamba beside attention: Bamba, Granite 4, Falcon-H1, Nemotron-H, and Jamba, whose Mamba is the first.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kBamba;
extern const Architecture kGraniteHybrid;
extern const Architecture kFalconH1;
extern const Architecture kNemotronH;
extern const Architecture kJamba;

}  // namespace serval
