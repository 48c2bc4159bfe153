#include "engine/scheduler/block_pool.h"

#include <utility>

#include "kernels/base/check.h"

namespace serval {

BlockRef& BlockRef::operator=(BlockRef&& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(id_, other.id_);
  other.reset();
  return *this;
}

BlockRef BlockRef::share() const {
  if (!pool_) return {};
  pool_->add_ref(id_);
  return {pool_, id_};
}

void BlockRef::reset() {
  if (!pool_) return;
  pool_->drop_ref(id_);
  pool_ = nullptr;
}

BlockPool::BlockPool(int num_blocks)
    : ref_counts_(num_blocks), cached_(num_blocks), next_(num_blocks + 1), prev_(num_blocks + 1) {
  SERVAL_CHECK(num_blocks > 0, num_blocks);
  next_[num_blocks] = prev_[num_blocks] = num_blocks;
  free_.reserve(num_blocks);
  for (BlockId id = num_blocks - 1; id >= 0; --id) free_.push_back(id);
}

BlockRef BlockPool::allocate() {
  SERVAL_CHECK(!free_.empty(), num_blocks(), num_evictable_);
  const BlockId id = free_.back();
  free_.pop_back();
  SERVAL_CHECK(ref_counts_[id] == 0, id, ref_counts_[id]);
  ref_counts_[id] = 1;
  return {this, id};
}

void BlockPool::add_ref(BlockId id) {
  SERVAL_CHECK(ref_counts_[id] > 0, id);
  if (cached_[id] && ref_counts_[id] == 1) unlink_evictable(id);
  ++ref_counts_[id];
}

void BlockPool::drop_ref(BlockId id) {
  SERVAL_CHECK(ref_counts_[id] > cached_[id], id, ref_counts_[id]);
  if (--ref_counts_[id] == 0) {
    free_.push_back(id);
  } else if (cached_[id] && ref_counts_[id] == 1) {
    append_evictable(id);
  }
}

void BlockPool::set_cached(BlockId id, bool cached) {
  SERVAL_CHECK(ref_counts_[id] > 0 && is_cached(id) != cached, id, ref_counts_[id], cached);
  cached_[id] = cached;
  if (ref_counts_[id] > 1) return;
  if (cached) {
    append_evictable(id);
  } else {
    unlink_evictable(id);
  }
}

void BlockPool::append_evictable(BlockId id) {
  const BlockId head = num_blocks();
  next_[id] = head;
  prev_[id] = prev_[head];
  next_[prev_[head]] = id;
  prev_[head] = id;
  ++num_evictable_;
}

void BlockPool::unlink_evictable(BlockId id) {
  next_[prev_[id]] = next_[id];
  prev_[next_[id]] = prev_[id];
  --num_evictable_;
}

void BlockPool::check_invariants(const std::vector<int>& expected) const {
  int num_unused = 0, num_cached_alone = 0;
  for (BlockId id = 0; id < num_blocks(); ++id) {
    SERVAL_CHECK(ref_counts_[id] == expected[id], "references of block", id, ref_counts_[id], expected[id]);
    SERVAL_CHECK(ref_counts_[id] >= cached_[id], id, ref_counts_[id]);
    num_unused += ref_counts_[id] == 0;
    num_cached_alone += is_cached(id) && ref_counts_[id] == 1;
  }
  SERVAL_CHECK(num_unused == num_free(), num_unused, num_free());
  std::vector<bool> seen(num_blocks());
  for (const BlockId id : free_) {
    SERVAL_CHECK(ref_counts_[id] == 0 && !seen[id], "free list", id, ref_counts_[id]);
    seen[id] = true;
  }
  SERVAL_CHECK(num_cached_alone == num_evictable_, num_cached_alone, num_evictable_);
  int listed = 0;
  for (BlockId id = oldest_evictable(); id >= 0; id = next_evictable(id), ++listed) {
    SERVAL_CHECK(is_cached(id) && ref_counts_[id] == 1 && !seen[id], "evictable list", id, ref_counts_[id]);
    seen[id] = true;
  }
  SERVAL_CHECK(listed == num_evictable_, listed, num_evictable_);
}

}  // namespace serval
