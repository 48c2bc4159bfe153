#include "engine/scheduler/capacity.h"

namespace serval {

int most_blocks(const BlockGeometry& geometry, int group, int positions, int chunk) {
  const int all = blocks_for(positions, geometry.block_size);
  const int window = geometry.groups[group].window;
  if (window == 0) return all;
  // The first row of a chunk sees window - 1 positions before it. A run of k positions that starts anywhere
  // touches at most (k - 2) / block_size + 2 blocks, rounded down.
  const int64_t seen = int64_t{window} + chunk - 1;
  const int64_t touched = (seen - 2 + geometry.block_size) / geometry.block_size + 1;
  return static_cast<int>(std::min<int64_t>(all, touched));
}

bool fits(const BlockGeometry& geometry, const SchedulerConfig& config, int prompt_len, int max_tokens,
          int n) {
  if (prompt_len < 1 || max_tokens < 0 || n < 1) return false;
  if (int64_t{prompt_len} + max_tokens > config.max_model_len) return false;
  if (n > int64_t{config.max_num_seqs} + config.max_waiting) return false;
  // The last token is drawn, never computed. Chunks shrink to the blocks there are, down to one row.
  const int positions = prompt_len + std::max(max_tokens, 1) - 1;
  for (int g = 0; g < geometry.num_groups; ++g) {
    if (most_blocks(geometry, g, positions, 1) > geometry.groups[g].num_blocks) return false;
  }
  return true;
}

}  // namespace serval
