// GPT-J (Wang and Komatsuzaki 2021) and CodeGen (Nijkamp et al. 2022): both parts of a layer read one norm, and
// neighbouring dimensions rotate together.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kGptj;
extern const Architecture kCodeGen;

}  // namespace serval
