// Ids for answers: random, so that nothing can be learned from or keyed by them.
#pragma once

#include <string>

namespace serval {

std::string unique_id();  // 32 hexadecimal digits; any thread

}  // namespace serval
