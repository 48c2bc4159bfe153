// Launchers of paged attention. Causal softmax attention over keys and values in blocks, for ragged rows:
// sequences whose plan splits them (decode, verification of drafts) by one warp an item, and a merge of what
// the items found; the others (chunks of prompts) by a block for 64 packed rows. How work is cut:
// kernels/attention_split.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/attention_params.h"
#include "kernels/cuda/launch_shape.h"

namespace serval::cuda {

// The two halves; each does nothing for the sequences of the other. max_rows: rows of the step, at most.
template <class T>
void attend_split(simt::Stream stream, const AttentionParams& params, int num_blocks, int max_rows,
                  size_t shared_limit);
template <class T>
void attend_tiles(simt::Stream stream, const AttentionParams& params, int num_blocks);

// Floats of item_state and item_out together for one item.
constexpr int64_t item_floats(int num_kv_heads, int head_dim) {
  return int64_t{num_kv_heads} * 16 * (2 + head_dim);
}

}  // namespace serval::cuda
