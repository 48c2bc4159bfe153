#include "engine/scheduler/kv_memory.h"

#include <algorithm>
#include <limits>

#include "engine/scheduler/capacity.h"
#include "kernels/base/check.h"

namespace serval {
namespace {

// As many nodes as blocks are enough where every node has a full-attention block. Where all groups are
// windowed, inner nodes may outlive their blocks, and get some room for that.
int max_nodes(const BlockGeometry& geometry, int max_blocks) {
  int full = 0, windowed = 0;
  for (int g = 0; g < geometry.num_groups; ++g) {
    int& most = geometry.groups[g].window == 0 ? full : windowed;
    most = std::max(most, geometry.groups[g].num_blocks);
  }
  return full > 0 ? full : 2 * windowed + max_blocks;
}

}  // namespace

KvMemory::KvMemory(const BlockGeometry& geometry, const SchedulerConfig& config)
    : geometry_(geometry), max_blocks_(blocks_for(config.max_model_len, geometry.block_size)) {
  pools_.reserve(geometry.num_groups);
  for (int g = 0; g < geometry.num_groups; ++g) pools_.emplace_back(geometry.groups[g].num_blocks);
  if (config.enable_prefix_cache) {
    cache_.emplace(geometry, pools_, max_nodes(geometry, max_blocks_),
                   config.max_num_seqs + config.max_waiting, max_blocks_);
  }
}

SequenceKv KvMemory::make_sequence_kv() const {
  SequenceKv kv;
  for (int g = 0; g < geometry_.num_groups; ++g) kv.tables[g].reserve(max_blocks_);
  kv.shadows.reserve(max_blocks_);
  return kv;
}

NodeId KvMemory::acquire_root(std::string_view salt) {
  return cache_ ? cache_->acquire_root(salt) : kNoNode;
}

void KvMemory::release_root(NodeId root) {
  if (cache_) cache_->unpin(root);
}

int KvMemory::start_from_cache(SequenceKv& kv, NodeId root, std::span<const TokenId> tokens, int limit) {
  if (!cache_) return 0;
  const RadixCache::Match match = cache_->match(root, tokens, limit);
  const auto num_full = static_cast<int>(match.path.size());
  kv.copy_tokens = match.num_tokens % geometry_.block_size;
  for (int g = 0; g < geometry_.num_groups; ++g) {
    const int first = std::min(first_block_seen(geometry_, g, match.num_tokens), num_full);
    kv.tables[g].resize(first);
    for (int i = first; i < num_full; ++i) kv.tables[g].push_back(cache_->block(match.path[i], g).share());
    if (kv.copy_tokens > 0) kv.copy_from[g] = cache_->block(match.partial, g).share();
  }
  kv.shadows.resize(num_full);
  kv.num_inserted = num_full;
  move_to(kv, num_full > 0 ? match.path.back() : root);
  return match.num_tokens;
}

int KvMemory::start_from(SequenceKv& kv, const SequenceKv& other, int limit) {
  const int num_full = limit / geometry_.block_size;
  const int num_seen = blocks_for(limit, geometry_.block_size);
  for (int g = 0; g < geometry_.num_groups; ++g) {
    if (other.num_blocks(g) < num_seen) return -1;
    const int first = first_block_seen(geometry_, g, limit);
    if (first < num_seen && !other.tables[g][first]) return -1;  // later ones are there when the first is
  }
  kv.copy_tokens = limit % geometry_.block_size;
  for (int g = 0; g < geometry_.num_groups; ++g) {
    const int first = std::min(first_block_seen(geometry_, g, limit), num_full);
    kv.tables[g].resize(first);
    for (int i = first; i < num_full; ++i) kv.tables[g].push_back(other.tables[g][i].share());
    if (kv.copy_tokens > 0) kv.copy_from[g] = other.tables[g][num_full].share();
  }
  if (other.node == kNoNode) return limit;
  kv.num_inserted = std::min(other.num_inserted, num_full);
  NodeId node = other.node;
  for (int i = other.num_inserted; i > kv.num_inserted; --i) node = cache_->parent(node);
  for (int i = 0; i < kv.num_inserted; ++i) kv.shadows.push_back(other.shadows[i].share());
  move_to(kv, node);
  return limit;
}

void KvMemory::move_to(SequenceKv& kv, NodeId node) {
  if (node == kv.node) return;
  if (node != kNoNode) cache_->pin(node);
  if (kv.node != kNoNode) cache_->unpin(kv.node);
  kv.node = node;
}

int64_t KvMemory::reachable(const SequenceKv& kv) const {
  int64_t end = std::numeric_limits<int64_t>::max();
  for (int g = 0; g < geometry_.num_groups; ++g) {
    end = std::min(end, (int64_t{kv.num_blocks(g)} + num_available(g)) * geometry_.block_size);
  }
  return end;
}

int KvMemory::num_missing(const SequenceKv& kv, int group, int end) const {
  return std::max(0, blocks_for(end, geometry_.block_size) - kv.num_blocks(group));
}

int KvMemory::num_missing(const SequenceKv& kv, int group, int end, int chunk) const {
  const int missing = num_missing(kv, group, end);
  if (geometry_.groups[group].window == 0) return missing;
  const auto& table = kv.tables[group];
  const auto first_held =
      std::find_if(table.begin(), table.end(), [](const BlockRef& block) { return bool(block); });
  const auto num_held = static_cast<int>(table.end() - first_held);
  return std::min(missing, std::max(0, most_blocks(geometry_, group, end, chunk) - num_held));
}

int KvMemory::gain(const SequenceKv& kv, int group) const {
  const BlockPool& pool = pools_[group];
  int gained = 0;
  for (const BlockRef& block : kv.tables[group]) gained += block && pool.num_holders(block.id()) == 1;
  if (geometry_.groups[group].window == 0) {
    for (const BlockRef& block : kv.shadows) gained += block && pool.num_holders(block.id()) == 1;
  }
  return gained;
}

BlockRef KvMemory::allocate(int group) {
  if (pools_[group].num_free() == 0) {
    const bool evicted = cache_ && cache_->evict_one(group);
    SERVAL_CHECK(evicted, "no block is available", group);
  }
  return pools_[group].allocate();
}

void KvMemory::extend(SequenceKv& kv, int end) {
  const int num_blocks = blocks_for(end, geometry_.block_size);
  for (int g = 0; g < geometry_.num_groups; ++g) {
    while (kv.num_blocks(g) < num_blocks) kv.tables[g].push_back(allocate(g));
  }
}

void KvMemory::advance(SequenceKv& kv, std::span<const TokenId> tokens, int num_computed) {
  insert(kv, tokens, num_computed);
  for (int g = 0; g < geometry_.num_groups; ++g) {
    const int first = first_block_seen(geometry_, g, num_computed);
    // What lies before the first empty entry from the back has been let go already.
    for (int i = std::min(first, kv.num_blocks(g)) - 1; i >= 0 && kv.tables[g][i]; --i)
      kv.tables[g][i].reset();
  }
}

// Hands the blocks that are full, and not yet in the tree, to the cache.
void KvMemory::insert(SequenceKv& kv, std::span<const TokenId> tokens, int num_computed) {
  const int block_size = geometry_.block_size;
  while (kv.node != kNoNode && (kv.num_inserted + 1) * block_size <= num_computed) {
    const int i = kv.num_inserted;
    GroupBlocks blocks;
    int full_group = -1;
    for (int g = 0; g < geometry_.num_groups; ++g) {
      blocks[g] = kv.tables[g][i].share();
      if (geometry_.groups[g].window == 0) full_group = g;
    }
    const NodeId node = cache_->insert(kv.node, tokens.subspan(i * block_size, block_size), blocks);
    if (node != kNoNode) {
      const bool is_shadowed =
          full_group >= 0 && cache_->block(node, full_group).id() != blocks[full_group].id();
      kv.shadows.push_back(is_shadowed ? cache_->block(node, full_group).share() : BlockRef());
      ++kv.num_inserted;
    }
    move_to(kv, node);
  }
}

void KvMemory::end_copy(SequenceKv& kv) {
  for (BlockRef& block : kv.copy_from) block.reset();
  kv.copy_tokens = 0;
}

void KvMemory::release(SequenceKv& kv, std::span<const TokenId> tokens, int num_computed, bool trusted) {
  end_copy(kv);
  if (trusted) {
    insert(kv, tokens, num_computed);
    const int tail_begin = kv.num_inserted * geometry_.block_size;
    if (kv.node != kNoNode && num_computed > tail_begin) {
      GroupBlocks blocks;
      for (int g = 0; g < geometry_.num_groups; ++g) blocks[g] = kv.tables[g][kv.num_inserted].share();
      cache_->insert(kv.node, tokens.subspan(tail_begin, num_computed - tail_begin), blocks);
    }
  }
  // Deepest first: the cache's rule 2.
  for (int g = 0; g < geometry_.num_groups; ++g) {
    auto& table = kv.tables[g];
    const bool has_shadows = geometry_.groups[g].window == 0;
    while (!table.empty()) {
      table.pop_back();
      if (has_shadows && table.size() < kv.shadows.size()) kv.shadows.pop_back();
    }
  }
  kv.shadows.clear();
  kv.num_inserted = 0;
  move_to(kv, kNoNode);
}

void KvMemory::check_invariants(std::span<const SequenceKv> sequences, std::span<const NodeId> roots) const {
  std::vector<std::vector<int>> references;
  for (const BlockPool& pool : pools_) references.emplace_back(pool.num_blocks());
  const auto count = [&](int group, const BlockRef& block) {
    if (block) ++references[group][block.id()];
  };
  std::vector<int> pins(cache_ ? cache_->num_nodes() : 0);
  for (const NodeId root : roots) ++pins[root];
  for (const SequenceKv& kv : sequences) {
    if (kv.node != kNoNode) ++pins[kv.node];
    for (int g = 0; g < geometry_.num_groups; ++g) {
      for (const BlockRef& block : kv.tables[g]) count(g, block);
      count(g, kv.copy_from[g]);
      if (geometry_.groups[g].window > 0) continue;
      for (const BlockRef& block : kv.shadows) count(g, block);
    }
  }
  if (cache_) cache_->check_invariants(references, pins);
  for (int g = 0; g < geometry_.num_groups; ++g) pools_[g].check_invariants(references[g]);
}

void KvMemory::check_sequence(const SequenceKv& kv, std::span<const TokenId> tokens, int num_computed) const {
  const int block_size = geometry_.block_size;
  for (int g = 0; g < geometry_.num_groups; ++g) {
    SERVAL_CHECK(kv.num_blocks(g) >= blocks_for(num_computed, block_size), kv.num_blocks(g), num_computed);
    const int first = first_block_seen(geometry_, g, num_computed);
    for (int i = 0; i < kv.num_blocks(g); ++i) {
      SERVAL_CHECK(bool(kv.tables[g][i]) == (i >= first), "a block outside of the window, or none inside", g,
                   i, first);
    }
  }
  SERVAL_CHECK(kv.num_inserted * block_size <= num_computed, kv.num_inserted, num_computed);
  if (kv.node == kNoNode) return;
  SERVAL_CHECK(static_cast<int>(kv.shadows.size()) == kv.num_inserted, kv.shadows.size(), kv.num_inserted);
  NodeId node = kv.node;
  for (int i = kv.num_inserted - 1; i >= 0; --i, node = cache_->parent(node)) {
    SERVAL_CHECK(std::ranges::equal(cache_->tokens(node), tokens.subspan(i * block_size, block_size)),
                 "a sequence stands at the wrong node", i, node);
  }
  SERVAL_CHECK(cache_->parent(node) == kNoNode, node);
}

}  // namespace serval
