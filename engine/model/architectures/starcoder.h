// StarCoder (Li et al. 2023), GPT-2 with one head of keys and values, and StarCoder 2 (Lozhkov et al. 2024), which
// has rotations and windows.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kGptBigCode;
extern const Architecture kStarcoder2;

}  // namespace serval
