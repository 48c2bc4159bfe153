// How far one template may go, whatever it says and whatever it is given.
#pragma once

#include <cstddef>
#include <cstdint>

namespace serval {

struct TemplateLimits {
  // Nested blocks, expressions, macro calls.
  int max_depth = 64;
  // Evaluated nodes.
  int64_t max_steps = 1'000'000;
  // Of the output; also bounds every intermediate string and list.
  size_t max_output_bytes = 4 << 20;
  // Between steps; time the thread waited for a core does not count; 0: none.
  int max_wall_ms = 100;
};

}  // namespace serval
