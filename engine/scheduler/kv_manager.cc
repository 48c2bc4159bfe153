#include "engine/scheduler/kv_manager.h"

#include <algorithm>
#include <utility>

#include "kernels/base/check.h"

namespace serval {
namespace {

std::vector<BlockPool*> borrow(const std::vector<std::unique_ptr<BlockPool>>& pools) {
  std::vector<BlockPool*> result;
  for (const auto& pool : pools) result.push_back(pool.get());
  return result;
}

std::vector<std::unique_ptr<BlockPool>> make_pools(const BlockGeometry& geometry) {
  std::vector<std::unique_ptr<BlockPool>> pools;
  for (int g = 0; g < geometry.num_groups; ++g)
    pools.push_back(std::make_unique<BlockPool>(geometry.groups[g].num_blocks));
  return pools;
}

}  // namespace

bool SequenceKv::holds_blocks() const {
  return std::ranges::any_of(blocks, [](const std::vector<BlockRef>& table) {
    return std::ranges::any_of(table, [](const BlockRef& block) { return bool{block}; });
  });
}

KvManager::KvManager(const BlockGeometry& geometry, bool enable_prefix_cache, int max_roots)
    : geometry_(geometry),
      enable_prefix_cache_(enable_prefix_cache),
      pools_(make_pools(geometry)),
      cache_(geometry, borrow(pools_), max_roots) {
  for (int g = 0; g < geometry.num_groups; ++g)
    SERVAL_CHECK(geometry.rule(g).span() % geometry.block_size == 0, g, geometry.rule(g).span(), geometry.block_size);
}

size_t KvManager::planned_bytes(const BlockGeometry& geometry, int max_roots) {
  size_t bytes = RadixCache::planned_bytes(geometry, max_roots);
  for (int g = 0; g < geometry.num_groups; ++g) bytes += BlockPool::planned_bytes(geometry.groups[g].num_blocks);
  return bytes;
}

void KvManager::prepare(SequenceKv& kv, int32_t max_positions) const {
  for (int g = 0; g < geometry_.num_groups; ++g)
    kv.blocks[g].reserve(geometry_.rule(g).blocks_for(max_positions));
}

BlockRef KvManager::allocate(int group) {
  BlockRef block = pools_[group]->allocate();
  if (!block && cache_.evict_one(group)) block = pools_[group]->allocate();
  return block;
}

// --- beginning ---

KvManager::Start KvManager::start_from_cache(SequenceKv& kv, RadixCache::NodeId& root, std::string& salt,
                                             int32_t length_class, std::span<const TokenId> tokens) {
  Start start;
  kv.num_shared = 0;
  if (!enable_prefix_cache_) return start;
  if (root == RadixCache::kNone) {
    root = cache_.root(salt, length_class);
    if (root == RadixCache::kNone) return start;
    cache_.pin(root);
  }
  const RadixCache::Match match = cache_.match(root, tokens);
  kv.reached = match.reached;
  kv.num_shared = match.num_blocks;
  pin_prefix(kv, match.node, match.num_blocks);
  start.num_computed = match.num_blocks * geometry_.block_size;
  start.num_part = match.partial_tokens;
  for (int g = 0; g < geometry_.num_groups; ++g) {
    const KvRule rule = geometry_.rule(g);
    kv.first_block[g] = rule.first_needed(start.num_computed);
    kv.blocks[g].resize(start.num_computed / rule.span());
    RadixCache::NodeId node = match.node;
    const int32_t last_read = rule.num_kept() > 0 ? 0 : kv.first_block[g] * rule.span();
    for (int32_t end = start.num_computed; end > last_read; end -= geometry_.block_size) {
      const int32_t index = end / rule.span() - 1;
      if (end % rule.span() == 0 && (index >= kv.first_block[g] || index < rule.num_kept()))
        kv.blocks[g][index] = cache_.block(node, g);
      node = cache_.parent(node);
    }
    if (match.partial != RadixCache::kNone) start.part[g] = cache_.block(match.partial, g);
  }
  return start;
}

// One far ahead has let go of what its windows have passed, and overwritten its state.
bool KvManager::can_fork(const SequenceKv& parent, int32_t row, int32_t position) const {
  for (int g = 0; g < geometry_.num_groups; ++g) {
    const KvRule rule = geometry_.rule(g);
    if (parent.first_block[g] > rule.first_needed(position) || !rule.may_fork(position, row)) return false;
  }
  return true;
}

// Whole blocks are shared; the one in which the two part is to be copied.
KvManager::Start KvManager::start_from_parent(SequenceKv& kv, const SequenceKv& parent,
                                              RadixCache::NodeId root, int32_t position) {
  const int32_t whole = position / geometry_.block_size;
  Start start{
      .num_computed = whole * geometry_.block_size, .num_part = position % geometry_.block_size, .part = {}};
  if (root != RadixCache::kNone) pin_prefix(kv, root, 0);
  kv.num_shared = whole;
  for (int g = 0; g < geometry_.num_groups; ++g) {
    const KvRule rule = geometry_.rule(g);
    const int32_t shared = position / rule.span();
    kv.first_block[g] = rule.first_needed(position);
    kv.blocks[g].resize(shared);
    for (int32_t i = 0; i < shared; ++i)
      if (i >= kv.first_block[g] || i < rule.num_kept()) kv.blocks[g][i] = parent.blocks[g][i];
    if (position % rule.span() > 0) start.part[g] = parent.blocks[g][shared];
  }
  return start;
}

bool KvManager::copy_part(SequenceKv& kv, Start& start, std::vector<GroupBlockCopy>& copies) {
  const int32_t end = start.num_computed + start.num_part;
  Blocks own;
  for (int g = 0; g < geometry_.num_groups; ++g) {
    if (static_cast<int32_t>(kv.blocks[g].size()) == geometry_.rule(g).blocks_for(end)) continue;
    own[g] = allocate(g);
    if (!own[g]) return false;
  }
  for (int g = 0; g < geometry_.num_groups; ++g) {
    if (!own[g]) continue;
    const int32_t begin = static_cast<int32_t>(kv.blocks[g].size()) * geometry_.rule(g).span();
    if (start.part[g]) copies.push_back({g, {start.part[g].id(), own[g].id(), end - begin}});
    kv.blocks[g].push_back(std::move(own[g]));
  }
  start.num_computed = end;
  start.num_part = 0;
  forget(kv, end);
  return true;
}

void KvManager::pin_prefix(SequenceKv& kv, RadixCache::NodeId node, int32_t num_blocks) {
  cache_.pin(node);
  kv.node = node;
  kv.num_cached_blocks = num_blocks;
}

// --- going on ---

int32_t KvManager::grow(SequenceKv& kv, int32_t end) {
  int32_t reached = end;
  for (int g = 0; g < geometry_.num_groups; ++g) {
    std::vector<BlockRef>& table = kv.blocks[g];
    const KvRule rule = geometry_.rule(g);
    const auto wanted = static_cast<size_t>(rule.blocks_for(end));
    while (table.size() < wanted) {
      BlockRef block = allocate(g);
      if (!block) break;
      table.push_back(std::move(block));
    }
    if (table.size() < wanted) reached = std::min(reached, static_cast<int32_t>(table.size()) * rule.span());
  }
  return reached;
}

void KvManager::give_back(SequenceKv& kv, int32_t num_computed) {
  for (int g = 0; g < geometry_.num_groups; ++g) {
    const int32_t used = geometry_.rule(g).blocks_for(num_computed);
    while (static_cast<int32_t>(kv.blocks[g].size()) > used) kv.blocks[g].pop_back();
    kv.num_told[g] = std::min(kv.num_told[g], used);
  }
}

void KvManager::tell(SequenceKv& kv, Admission& admission) const {
  for (int g = 0; g < geometry_.num_groups; ++g)
    admission.first_block[g] = kv.num_told[g] = geometry_.rule(g).num_kept() > 0 ? 0 : kv.first_block[g];
}

void KvManager::tell(SequenceKv& kv, SeqStep& step, Batch& batch) const {
  for (int g = 0; g < geometry_.num_groups; ++g) {
    step.first_block[g] = kv.num_told[g];
    step.blocks_begin[g] = static_cast<int32_t>(batch.blocks.size());
    for (; kv.num_told[g] < static_cast<int32_t>(kv.blocks[g].size()); ++kv.num_told[g]) {
      const BlockRef& block = kv.blocks[g][kv.num_told[g]];
      batch.blocks.push_back(block ? block.id() : kForgottenBlock);
    }
    step.num_blocks[g] = static_cast<int32_t>(batch.blocks.size()) - step.blocks_begin[g];
  }
}

KvManager::Blocks KvManager::blocks_at(const SequenceKv& kv, int32_t index) const {
  Blocks blocks;
  for (int g = 0; g < geometry_.num_groups; ++g) {
    if (const BlockRef* const block = block_of_node(kv, g, index)) blocks[g] = *block;
  }
  return blocks;
}

const BlockRef* KvManager::block_of_node(const SequenceKv& kv, int group, int32_t index) const {
  const int32_t end = (index + 1) * geometry_.block_size, span = geometry_.rule(group).span();
  return end % span == 0 ? &kv.blocks[group][end / span - 1] : nullptr;
}

void KvManager::cache_whole(SequenceKv& kv, std::span<const TokenId> tokens, int32_t num_computed,
                            int32_t num_prompt) {
  const int32_t size = geometry_.block_size;
  while (kv.node != RadixCache::kNone && (kv.num_cached_blocks + 1) * size <= num_computed) {
    const RadixCache::NodeId next = cache_.insert(kv.node, tokens.subspan(kv.num_cached_blocks * size, size),
                                                  blocks_at(kv, kv.num_cached_blocks));
    if (next != RadixCache::kNone) cache_.pin(next);
    cache_.unpin(kv.node);
    kv.node = next;  // kNone when the cache has no node left: this sequence is cached no further
    ++kv.num_cached_blocks;
    if (next != RadixCache::kNone && kv.num_cached_blocks == num_prompt / size)
      cache_.want_window(next, kv.num_cached_blocks);  // the same prompt may come again
  }
}

void KvManager::computed(SequenceKv& kv, std::span<const TokenId> tokens, int32_t num_computed,
                         int32_t num_prompt) {
  cache_whole(kv, tokens, num_computed, num_prompt);
  forget(kv, num_computed);
}

void KvManager::computed_last(SequenceKv& kv, std::span<const TokenId> tokens, int32_t num_computed,
                              int32_t num_prompt) {
  cache_whole(kv, tokens, num_computed, num_prompt);
  if (kv.node == RadixCache::kNone) return;
  cache_.want_window(kv.node, kv.num_cached_blocks);
  const int32_t whole = kv.num_cached_blocks * geometry_.block_size;
  if (num_computed > whole && geometry_.may_copy_part())
    cache_.insert(kv.node, tokens.subspan(whole, num_computed - whole), blocks_at(kv, kv.num_cached_blocks));
}

void KvManager::forget(SequenceKv& kv, int32_t num_computed) {
  for (int g = 0; g < geometry_.num_groups; ++g) {
    const KvRule rule = geometry_.rule(g);
    for (const int32_t first = rule.first_needed(num_computed); kv.first_block[g] < first; ++kv.first_block[g])
      if (kv.first_block[g] >= rule.num_kept()) kv.blocks[g][kv.first_block[g]] = BlockRef();
  }
}

// --- ending ---

void KvManager::release(SequenceKv& kv) {
  if (kv.node != RadixCache::kNone) cache_.unpin(kv.node);
  kv.node = RadixCache::kNone;
  kv.num_cached_blocks = 0;
  for (int g = 0; g < geometry_.num_groups; ++g) {
    kv.blocks[g].clear();
    kv.first_block[g] = kv.num_told[g] = 0;
  }
}

void KvManager::release_root(RadixCache::NodeId root) {
  if (root != RadixCache::kNone) cache_.unpin(root);
}

// --- looking on ---

void KvManager::tell_stats(SchedulerStats& stats) const {
  stats.num_blocks = pools_[0]->num_blocks();
  stats.num_free_blocks = pools_[0]->num_free();
  stats.num_cached_blocks = pools_[0]->num_cached_only();
  for (int g = 0; g < geometry_.num_groups; ++g) {
    const double held = pools_[g]->num_blocks() - num_available(g);
    stats.kv_usage = std::max(stats.kv_usage, held / pools_[g]->num_blocks());
  }
  stats.num_evicted_blocks = cache_.num_evicted_blocks();
}

void KvManager::check_invariants(std::span<const SequenceKv* const> holders) const {
  cache_.check_invariants();
  for (int g = 0; g < geometry_.num_groups; ++g) {
    std::vector<int> refs(pools_[g]->num_blocks(), 0);
    cache_.for_each_block([&](BlockId id, int group) {
      if (group == g) ++refs[id];  // ids of another group may lie beyond this one's
    });
    const std::vector<int> cached = refs;
    for (const SequenceKv* kv : holders) {
      for (const BlockRef& block : kv->blocks[g]) {
        if (block) ++refs[block.id()];
      }
    }
    int free = 0, cached_only = 0;
    for (BlockId b = 0; b < pools_[g]->num_blocks(); ++b) {
      SERVAL_CHECK(refs[b] == pools_[g]->refs(b), g, b, refs[b], pools_[g]->refs(b));
      SERVAL_CHECK((cached[b] > 0) == pools_[g]->cached(b), g, b);
      free += refs[b] == 0;
      cached_only += refs[b] == 1 && cached[b] == 1;
    }
    SERVAL_CHECK(free == pools_[g]->num_free(), g, free, pools_[g]->num_free());
    SERVAL_CHECK(cached_only == pools_[g]->num_cached_only(), g, cached_only, pools_[g]->num_cached_only());
  }
}

void KvManager::check_sequence(const SequenceKv& kv, RadixCache::NodeId root, std::span<const TokenId> tokens,
                               int32_t num_computed, int32_t next_row) const {
  const int32_t size = geometry_.block_size;
  SERVAL_CHECK(kv.num_cached_blocks * size <= num_computed, kv.num_cached_blocks, num_computed);
  for (int g = 0; g < geometry_.num_groups; ++g) {
    const KvRule rule = geometry_.rule(g);
    const int32_t held = rule.blocks_for(next_row);
    SERVAL_CHECK(static_cast<int32_t>(kv.blocks[g].size()) >= held, g, kv.blocks[g].size(), held);
    // What rows are yet to be written to is nobody else's.
    for (size_t i = num_computed / rule.span(); i < kv.blocks[g].size(); ++i) {
      const BlockRef& block = kv.blocks[g][i];
      if (block) SERVAL_CHECK(pools_[g]->refs(block.id()) == 1 && !pools_[g]->cached(block.id()), g, i);
    }
  }
  if (kv.node == RadixCache::kNone) return;
  // The path to the node it stands on says its tokens, and what it shares with the cache is from there.
  RadixCache::NodeId node = kv.node;
  for (int32_t i = kv.num_cached_blocks; i-- > 0; node = cache_.parent(node)) {
    SERVAL_CHECK(std::ranges::equal(cache_.tokens_of(node), tokens.subspan(i * size, size)), i, node);
    for (int g = 0; g < geometry_.num_groups; ++g) {
      const BlockRef* const block = block_of_node(kv, g, i);
      if (!block || !*block) continue;
      const RadixCache::NodeId holder = cache_.holder(block->id(), g);
      SERVAL_CHECK(holder == RadixCache::kNone || holder == node, g, i, holder, node);
    }
  }
  SERVAL_CHECK(node == root, node, root);
}

}  // namespace serval
