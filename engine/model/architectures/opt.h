// OPT (Zhang et al. 2022), BioGPT (Luo et al. 2022) and XGLM (Lin et al. 2021): positions added to the embedding,
// learned or as sinusoids, whose tables begin two rows early.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kOpt, kInt8Opt;
extern const Architecture kBioGpt;
extern const Architecture kXglm;

}  // namespace serval
