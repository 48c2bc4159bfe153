// What one call of paged attention is given, as kernels see it: device memory, all of it borrowed.
#pragma once

#include <cstdint>

#include "kernels/cuda/number.h"

namespace serval::cuda {

struct AttentionParams {
  const void* q = nullptr;  // [num_rows, num_heads, head_dim] of T, q_stride elements between rows
  int64_t q_stride = 0;
  void* out = nullptr;  // [num_rows, num_heads * head_dim] of T
  const void* keys = nullptr;
  const void* values = nullptr;  // [block][kv head][position][dim] of T or Fp8
  bool is_fp8 = false;
  float key_scale = 1, value_scale = 1;
  int num_heads = 0, num_kv_heads = 0, head_dim = 0;  // head_dim a multiple of 8, of 16 for fp8; at most 256
  int block_shift = 0;                                // log2 of positions in a block
  float scale = 1;
  float soft_cap = 0;             // 0: none; c: logits become c * tanh(logit / c)
  int window = 0;                 // 0: all; w: a row at position p sees positions > p - w
  const float* sinks = nullptr;   // [num_heads]: a logit that joins each softmax without a value; null: none
  const float* slopes = nullptr;  // [num_heads]: a logit falls by this for each position to its key; null: none

  // Device arrays of the step, as AttentionBatch; counts[0] is the number of sequences, counts[1] the width
  // of the block tables.
  const int32_t* counts = nullptr;
  const int32_t* row_start = nullptr;
  const int32_t* first_pos = nullptr;
  const int32_t* block_table = nullptr;
  const int32_t* item_start = nullptr;  // of the plan
  const int32_t* tile_start = nullptr;
  // Branches of trees of drafts, as AttentionBatch; null: there are none.
  const uint64_t* tree_masks = nullptr;  // [num_seqs]
  const int32_t* tree_start = nullptr;   // [num_seqs]

  // Scratch for the plan's items: [items * num_kv_heads][kItemRows] times 2, and times head_dim.
  float* item_state = nullptr;
  float* item_out = nullptr;
};

}  // namespace serval::cuda
