// The memory behind block ids: keys and values of every layer, in as many blocks as the layer's KV group has.
// Knows nothing of who holds a block.
#pragma once

#include <span>
#include <vector>

#include "engine/batch.h"
#include "engine/kv_geometry.h"
#include "engine/model/model_spec.h"
#include "kernels/backend.h"

namespace serval {

// Bytes of one block of a group: keys and values of all its layers.
size_t kv_block_bytes(const ModelSpec& spec, int group, int block_size, DType dtype);

class KvCache {
 public:
  // `max_copies`: of one group in one step.
  KvCache(const ModelSpec& spec, const BlockGeometry& geometry, DType dtype, Backend& backend, int max_copies);

  static size_t planned_bytes(const ModelSpec& spec, const BlockGeometry& geometry, DType dtype);

  std::span<const KvLayer> layers() const { return layers_; }
  size_t bytes() const { return memory_.bytes; }

  // In order.
  void copy(std::span<const GroupBlockCopy> copies);
  // Of one group, in order.
  void move(int group, std::span<const KvMove> moves);

 private:
  Backend& backend_;
  std::vector<std::vector<int>> group_layers_;
  Buffer memory_;
  std::vector<KvLayer> layers_;
  std::vector<BlockCopy> copies_;  // of one group
};

}  // namespace serval
