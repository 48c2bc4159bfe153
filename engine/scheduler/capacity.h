// Arithmetic of positions and blocks: which blocks a row sees, how many a sequence can need. Pure functions,
// any thread.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/batch.h"
#include "engine/config.h"

namespace serval {

inline int blocks_for(int positions, int block_size) {
  return (positions + block_size - 1) / block_size;
}

// Index of the first block that a row at position `pos` sees; the blocks before it may be forgotten. A
// windowed row sees the positions pos - window + 1 .. pos.
inline int first_block_seen(const BlockGeometry& geometry, int group, int pos) {
  const int window = geometry.groups[group].window;
  return window == 0 ? 0 : std::max(0, pos - window + 1) / geometry.block_size;
}

// The most blocks of the group that a sequence of `positions` holds at once while it computes at most `chunk`
// rows in a step.
int most_blocks(const BlockGeometry& geometry, int group, int positions, int chunk);

// Can a request ever run? Its context fits max_model_len, each of its sequences alone fits the KV memory to
// its very last token (so that the oldest sequence can always go on, whoever else must give way), and its
// sequences fit the queue together.
bool fits(const BlockGeometry& geometry, const SchedulerConfig& config, int prompt_len, int max_tokens,
          int n);

}  // namespace serval
