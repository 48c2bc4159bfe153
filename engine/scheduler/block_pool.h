// Which KV blocks of one group exist and who holds them. A block is held by references (BlockRef) and freed
// by nobody: it returns to the free list when its last reference goes. Pure bookkeeping; single-threaded;
// allocates only in its constructor.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "engine/batch.h"
#include "kernels/base/check.h"

namespace serval {

class BlockPool;

// A counted hold on one block; empty when default-made or moved from.
class BlockRef {
 public:
  BlockRef() = default;
  BlockRef(const BlockRef& other);
  BlockRef(BlockRef&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)), id_(std::exchange(other.id_, -1)) {}
  BlockRef& operator=(BlockRef other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(id_, other.id_);
    return *this;
  }
  ~BlockRef();

  BlockId id() const { return id_; }
  explicit operator bool() const { return pool_ != nullptr; }

 private:
  friend class BlockPool;
  BlockRef(BlockPool* pool, BlockId id) : pool_(pool), id_(id) {}
  BlockPool* pool_ = nullptr;
  BlockId id_ = -1;
};

class BlockPool {
 public:
  explicit BlockPool(int num_blocks)
      : refs_(num_blocks, 0), cached_(num_blocks, 0), wanted_(num_blocks, 0), links_(num_blocks) {
    free_.reserve(num_blocks);
    for (int i = num_blocks - 1; i >= 0; --i) free_.push_back(i);  // low ids first
  }
  static size_t planned_bytes(size_t num_blocks) {
    return num_blocks * (sizeof(int32_t) + 2 * sizeof(uint8_t) + sizeof(BlockId) + sizeof(Links));
  }
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // Empty when no block is free (the caller may evict cached ones first).
  BlockRef allocate() {
    if (free_.empty()) return {};
    const BlockId id = free_.back();
    free_.pop_back();
    SERVAL_CHECK(refs_[id] == 0, id, refs_[id]);
    refs_[id] = 1;
    return BlockRef(this, id);
  }

  // The prefix cache says whether one of a block's references is its own.
  void set_cached(BlockId id, bool cached) {
    if (is_cached_only(id)) leave(id);
    cached_[id] = cached;
    wanted_[id] = false;
    if (is_cached_only(id)) enter(id);
  }
  // A match may end here again: when the last sequence lets go of the cached block, it goes last instead of
  // first. Counts as a use.
  void set_wanted(BlockId id) {
    wanted_[id] = true;
    if (!is_cached_only(id)) return;
    leave(id);
    enter(id);
  }

  int num_blocks() const { return static_cast<int>(refs_.size()); }
  int num_free() const { return static_cast<int>(free_.size()); }
  int num_cached_only() const { return num_cached_only_; }  // held by the prefix cache and nobody else
  BlockId oldest_cached_only() const { return oldest_; }    // of those the one to go first; -1: there is none
  int refs(BlockId id) const { return refs_[id]; }
  bool cached(BlockId id) const { return cached_[id] != 0; }

 private:
  friend class BlockRef;
  struct Links {
    BlockId older = -1, newer = -1;
  };
  bool is_cached_only(BlockId id) const { return cached_[id] && refs_[id] == 1; }
  void ref(BlockId id) {
    if (is_cached_only(id)) leave(id);
    ++refs_[id];
  }
  void unref(BlockId id) {
    SERVAL_CHECK(refs_[id] > 0, id);
    if (--refs_[id] == 0) {
      SERVAL_CHECK(!cached_[id], id);
      free_.push_back(id);
    } else if (is_cached_only(id)) {
      enter(id);
    }
  }
  void enter(BlockId id) {
    BlockId& end = wanted_[id] ? newest_ : oldest_;
    links_[id] = wanted_[id] ? Links{end, -1} : Links{-1, end};
    if (end >= 0) (wanted_[id] ? links_[end].newer : links_[end].older) = id;
    end = id;
    if (++num_cached_only_ == 1) oldest_ = newest_ = id;
  }
  void leave(BlockId id) {
    const Links& links = links_[id];
    (links.older < 0 ? oldest_ : links_[links.older].newer) = links.newer;
    (links.newer < 0 ? newest_ : links_[links.newer].older) = links.older;
    --num_cached_only_;
  }

  std::vector<int32_t> refs_;
  std::vector<uint8_t> cached_;
  std::vector<uint8_t> wanted_;
  std::vector<BlockId> free_;
  std::vector<Links> links_;           // of the blocks that only the cache holds,
  BlockId oldest_ = -1, newest_ = -1;  // in the order in which they go
  int num_cached_only_ = 0;
};

inline BlockRef::BlockRef(const BlockRef& other) : pool_(other.pool_), id_(other.id_) {
  if (pool_) pool_->ref(id_);
}
inline BlockRef::~BlockRef() {
  if (pool_) pool_->unref(id_);
}

}  // namespace serval
