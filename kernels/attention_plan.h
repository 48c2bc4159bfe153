// How the rows of a step are cut into work for split attention: host arithmetic, once per step and KV group.
// The device finds its work with the functions of attention_split.h.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/attention_split.h"
#include "kernels/backend.h"

namespace serval {

struct AttentionPlan {
  int num_items = 0;  // of split sequences: (16 packed rows, chunk), for each KV head
  int num_tiles = 0;  // of the others: 64 packed rows, for each KV head
};

// Fills item_start and tile_start [num_seqs + 1]: the items of sequence s are [item_start[s], item_start[s +
// 1]), its tiles likewise; a sequence has one or the other. It is split when it has at most kMaxSplitRows
// packed rows and its items still fit into max_items; both ways give the same bits.
AttentionPlan plan_attention(const AttentionBatch& batch, int heads_per_kv, int window, int max_items,
                             std::span<int32_t> item_start, std::span<int32_t> tile_start);

}  // namespace serval
