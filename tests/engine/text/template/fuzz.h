// Mutates templates and renders what comes out: nothing may crash, hang or leave the codes that errors have.
#pragma once

#include <cstdint>

namespace serval {

struct FuzzCounts {
  int64_t rendered = 0;
  int64_t refused = 0;
};

// From the language cases, and the shared templates when they are there. Bounded in count and, by the
// template limits, in time.
FuzzCounts fuzz_templates(uint64_t seed, int64_t count);

}  // namespace serval
