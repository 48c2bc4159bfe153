#include "engine/runner/kv_cache.h"

#include <variant>

#include "kernels/base/check.h"

namespace serval {
namespace {

KvLayer shape_of(const ModelSpec& spec, int layer, int num_blocks, int block_size, DType dtype) {
  KvLayer kv;
  kv.dtype = dtype;
  kv.num_blocks = num_blocks;
  kv.block_size = block_size;
  std::visit([&](const auto& mixer) { mixer.shape_kv(kv); }, spec.layers[layer].mixer);
  return kv;
}

// Of a layer's keys, or of its values; the next array starts on a cache line.
size_t array_bytes(const KvLayer& kv, size_t block_bytes) {
  return (kv.num_blocks * block_bytes + 63) / 64 * 64;
}
size_t arrays_bytes(const KvLayer& kv) {
  return array_bytes(kv, kv.key_bytes()) + array_bytes(kv, kv.value_bytes());
}

}  // namespace

size_t kv_block_bytes(const ModelSpec& spec, int group, int block_size, DType dtype) {
  size_t bytes = 0;
  for (const int layer : spec.kv_groups[group].layers) {
    const KvLayer kv = shape_of(spec, layer, 1, block_size, dtype);
    bytes += kv.key_bytes() + kv.value_bytes();
  }
  return bytes;
}

size_t KvCache::planned_bytes(const ModelSpec& spec, const BlockGeometry& geometry, DType dtype) {
  size_t bytes = 0;
  for (size_t g = 0; g < spec.kv_groups.size(); ++g) {
    for (const int layer : spec.kv_groups[g].layers) {
      bytes +=
          arrays_bytes(shape_of(spec, layer, geometry.groups[g].num_blocks, geometry.rule(g).span(), dtype));
    }
  }
  return bytes;
}

KvCache::KvCache(const ModelSpec& spec, const BlockGeometry& geometry, DType dtype, Backend& backend,
                 int max_copies)
    : backend_(backend), layers_(spec.layers.size()) {
  copies_.reserve(max_copies);
  memory_ = backend.reserve(planned_bytes(spec, geometry, dtype));
  auto* next = memory_.as<std::byte>();
  for (size_t g = 0; g < spec.kv_groups.size(); ++g) {
    group_layers_.push_back(spec.kv_groups[g].layers);
    for (const int layer : spec.kv_groups[g].layers) {
      KvLayer& kv = layers_[layer];
      kv = shape_of(spec, layer, geometry.groups[g].num_blocks, geometry.rule(g).span(), dtype);
      kv.keys = next;
      kv.values = next + array_bytes(kv, kv.key_bytes());
      next += arrays_bytes(kv);
    }
  }
}

void KvCache::move(int group, std::span<const KvMove> moves) {
  for (const int layer : group_layers_[group]) backend_.move_kv(layers_[layer], moves);
}

void KvCache::copy(std::span<const GroupBlockCopy> copies) {
  for (int g = 0; g < static_cast<int>(group_layers_.size()); ++g) {
    copies_.clear();
    for (const auto& [group, copy] : copies) {
      if (group != g) continue;
      const KvLayer& kv = layers_[group_layers_[g][0]];
      SERVAL_CHECK(copy.from >= 0 && copy.from < kv.num_blocks && copy.to >= 0 && copy.to < kv.num_blocks,
                   copy.from, copy.to, kv.num_blocks);
      SERVAL_CHECK(copy.num_tokens >= 0 && copy.num_tokens <= kv.block_size, copy.num_tokens, kv.block_size);
      copies_.push_back(copy);
    }
    if (copies_.empty()) continue;
    for (const int layer : group_layers_[g]) backend_.copy_kv_blocks(layers_[layer], copies_);
  }
}

}  // namespace serval
