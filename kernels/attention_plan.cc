#include "kernels/attention_plan.h"

#include "kernels/base/check.h"

namespace serval {

AttentionPlan plan_attention(const AttentionBatch& batch, int heads_per_kv, int window, int max_items,
                             std::span<int32_t> item_start, std::span<int32_t> tile_start) {
  SERVAL_CHECK(static_cast<int>(item_start.size()) > batch.num_seqs &&
                   static_cast<int>(tile_start.size()) > batch.num_seqs,
               item_start.size(), tile_start.size(), batch.num_seqs);
  AttentionPlan plan;
  item_start[0] = tile_start[0] = 0;
  for (int s = 0; s < batch.num_seqs; ++s) {
    const int rows = batch.row_start[s + 1] - batch.row_start[s];
    const int packed = rows * heads_per_kv;
    const int items = tiles_of(packed, kItemRows) * chunks_of(batch.first_pos[s], rows, window).count;
    if (packed <= kMaxSplitRows && plan.num_items + items <= max_items) {
      plan.num_items += items;
    } else {
      plan.num_tiles += tiles_of(packed, kTileQueryRows);
    }
    item_start[s + 1] = plan.num_items;
    tile_start[s + 1] = plan.num_tiles;
  }
  return plan;
}

}  // namespace serval
