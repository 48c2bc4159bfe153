// Mamba 2 beside attention: Bamba, Granite 4, Falcon-H1, Nemotron-H.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kBamba;
extern const Architecture kGraniteHybrid;
extern const Architecture kFalconH1;
extern const Architecture kNemotronH;

}  // namespace serval
