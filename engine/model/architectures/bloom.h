// BLOOM (BigScience 2022), with a norm behind the embedding, and MPT (MosaicML 2023), without a bias: ALiBi in place of
// positions.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kBloom;
extern const Architecture kMpt;

}  // namespace serval
