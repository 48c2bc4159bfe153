// What one forward pass reads: flat arrays over the rows of a step. A plain view; the runner owns the memory.
#pragma once

#include <cstdint>
#include <span>

#include "engine/batch.h"
#include "kernels/backend.h"

namespace serval {

// The block tables of one KV group: where this step's rows are written and what they may read.
struct KvGroupInput {
  const int32_t* slots = nullptr;  // [num_rows]: block * block_size + offset, where a row's K and V go
  AttentionBatch attention;
};

struct ForwardInput {
  std::span<const int32_t> token_ids;  // [num_rows], each in [0, vocab)
  std::span<const int32_t> positions;  // [num_rows], each in [0, max_positions of the Transformer)
  KvGroupInput groups[kMaxKvGroups];   // the first ModelSpec::kv_groups.size() are read

  int num_rows() const { return static_cast<int>(token_ids.size()); }
};

}  // namespace serval
