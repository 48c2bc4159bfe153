// Which KV blocks of one group exist and who holds them. Knows neither what a block contains nor why it is
// held; of the prefix cache it knows one bit per block: that one of its references is the cache's.
// Single-threaded; allocates only when constructed.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/batch.h"

namespace serval {

class BlockPool;

// One reference to a block. A block is freed by nobody: its last reference goes away.
class BlockRef {
 public:
  BlockRef() = default;
  BlockRef(BlockRef&& other) noexcept : pool_(other.pool_), id_(other.id_) { other.pool_ = nullptr; }
  BlockRef& operator=(BlockRef&& other) noexcept;
  ~BlockRef() { reset(); }

  BlockRef share() const;  // another reference to the same block; of nothing, nothing
  void reset();

  explicit operator bool() const { return pool_ != nullptr; }
  BlockId id() const { return pool_ ? id_ : -1; }

 private:
  friend class BlockPool;
  BlockRef(BlockPool* pool, BlockId id) : pool_(pool), id_(id) {}

  BlockPool* pool_ = nullptr;
  BlockId id_ = -1;
};

// Must outlive its references, and must not move while there are any.
class BlockPool {
 public:
  explicit BlockPool(int num_blocks);

  // There must be a free block (num_free() > 0).
  BlockRef allocate();

  int num_blocks() const { return static_cast<int>(ref_counts_.size()); }
  int num_free() const { return static_cast<int>(free_.size()); }
  // Held by the cache alone: the cache can give them back at any moment.
  int num_evictable() const { return num_evictable_; }
  int num_available() const { return num_free() + num_evictable_; }
  int ref_count(BlockId id) const { return ref_counts_[id]; }
  // References of sequences, which no eviction can take away.
  int num_holders(BlockId id) const { return ref_counts_[id] - cached_[id]; }

  // Says that one of the block's references is (no longer) the cache's.
  void set_cached(BlockId id, bool cached);
  bool is_cached(BlockId id) const { return cached_[id] != 0; }
  // The evictable blocks in the order in which their last holder let them go; -1 at the end.
  BlockId oldest_evictable() const { return after(num_blocks()); }
  BlockId next_evictable(BlockId id) const { return after(id); }

  // Aborts when the counts contradict each other. `expected[id]`: references the caller knows of.
  void check_invariants(const std::vector<int>& expected) const;

 private:
  friend class BlockRef;
  void add_ref(BlockId id);
  void drop_ref(BlockId id);
  void append_evictable(BlockId id);
  void unlink_evictable(BlockId id);
  BlockId after(BlockId id) const { return next_[id] == num_blocks() ? -1 : next_[id]; }

  std::vector<int32_t> ref_counts_;
  std::vector<uint8_t> cached_;
  std::vector<BlockId> free_;  // a stack
  // A circular list through the evictable blocks, oldest first; entry num_blocks() is its head.
  std::vector<BlockId> next_, prev_;
  int num_evictable_ = 0;
};

}  // namespace serval
