// Arithmetic of blocks and windows, shared by the scheduler's files.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/batch.h"

namespace serval {

inline int32_t blocks_for(int32_t tokens, int32_t block_size) {
  return (tokens + block_size - 1) / block_size;
}

// First table index that a row at position `next` still reads.
inline int32_t first_needed_block(const KvGroupGeometry& group, int32_t next, int32_t block_size) {
  return group.window == 0 ? 0 : std::max(0, next - group.window + 1) / block_size;
}

}  // namespace serval
