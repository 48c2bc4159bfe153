#include "engine/scheduler/radix_cache.h"

#include <algorithm>
#include <functional>

namespace serval {
namespace {

int num_nodes_for(const BlockGeometry& geometry, int max_roots) {
  int total = 16 + max_roots;
  for (int g = 0; g < geometry.num_groups; ++g) total += 2 * geometry.groups[g].num_blocks;
  return total;
}

int common_prefix(std::span<const TokenId> a, std::span<const TokenId> b) {
  const size_t n = std::min(a.size(), b.size());
  return static_cast<int>(std::mismatch(a.begin(), a.begin() + n, b.begin()).first - a.begin());
}

}  // namespace

RadixCache::RadixCache(const BlockGeometry& geometry, std::vector<BlockPool*> pools, int max_roots)
    : geometry_(geometry), pools_(std::move(pools)), nodes_(num_nodes_for(geometry, max_roots)) {
  tokens_.resize(nodes_.size() * geometry_.block_size);
  salts_.resize(nodes_.size());
  free_nodes_.reserve(nodes_.size());
  for (int i = static_cast<int>(nodes_.size()) - 1; i >= 0; --i) free_nodes_.push_back(i);
  size_t num_buckets = 64;
  while (num_buckets < nodes_.size()) num_buckets *= 2;
  buckets_.assign(num_buckets, kNone);
}

RadixCache::~RadixCache() {
  for (size_t i = 0; i < nodes_.size(); ++i) {
    for (int g = 0; g < geometry_.num_groups; ++g) drop_block(static_cast<NodeId>(i), g);
  }
}

size_t RadixCache::bucket(NodeId parent, TokenId first) const {
  uint64_t h = (static_cast<uint64_t>(static_cast<uint32_t>(parent)) << 32 | static_cast<uint32_t>(first)) *
               0x9e3779b97f4a7c15ull;
  h ^= h >> 29;
  return static_cast<size_t>(h) & (buckets_.size() - 1);
}

size_t RadixCache::root_bucket(std::string_view salt) const {
  return std::hash<std::string_view>{}(salt) & (buckets_.size() - 1);
}

size_t RadixCache::bucket_of(NodeId node) {
  const NodeId parent = nodes_[node].parent;
  return parent == kNone ? root_bucket(salts_[node]) : bucket(parent, tokens_of(node)[0]);
}

RadixCache::NodeId RadixCache::new_node() {
  if (free_nodes_.empty() && oldest_ != kNone) remove(oldest_);
  if (free_nodes_.empty()) return kNone;
  const NodeId id = free_nodes_.back();
  free_nodes_.pop_back();
  Node& node = nodes_[id];
  node.in_use = true;
  node.last_used = ++clock_;
  return id;
}

RadixCache::NodeId RadixCache::root(std::string& salt) {
  for (NodeId id = buckets_[root_bucket(salt)]; id != kNone; id = nodes_[id].next_in_bucket) {
    if (nodes_[id].parent == kNone && salts_[id] == salt) return id;
  }
  const NodeId id = new_node();
  if (id == kNone) return kNone;
  std::swap(salts_[id], salt);
  attach(id, kNone);
  update_listing(id);
  return id;
}

void RadixCache::attach(NodeId node, NodeId parent) {
  nodes_[node].parent = parent;
  NodeId& head = buckets_[bucket_of(node)];
  nodes_[node].next_in_bucket = head;
  head = node;
  if (parent == kNone) return;
  ++nodes_[parent].num_children;
  update_listing(parent);
}

void RadixCache::detach(NodeId node) {
  NodeId* link = &buckets_[bucket_of(node)];
  while (*link != node) link = &nodes_[*link].next_in_bucket;
  *link = nodes_[node].next_in_bucket;
  const NodeId parent = nodes_[node].parent;
  if (parent == kNone) return;
  --nodes_[parent].num_children;
  update_listing(parent);
}

void RadixCache::drop_block(NodeId node, int group) {
  BlockRef& block = nodes_[node].blocks[group];
  if (!block) return;
  pools_[group]->set_cached(block.id(), false);
  block = BlockRef();
}

void RadixCache::remove(NodeId id) {
  Node& node = nodes_[id];
  SERVAL_CHECK(node.in_use && node.num_children == 0 && node.pins == 0, id, node.num_children, node.pins);
  unlist(id);
  for (int g = 0; g < geometry_.num_groups; ++g) {
    num_evicted_ += node.blocks[g] ? 1 : 0;
    drop_block(id, g);
  }
  detach(id);
  node = Node{};
  free_nodes_.push_back(id);
}

void RadixCache::unlist(NodeId id) {
  Node& node = nodes_[id];
  if (!node.listed) return;
  (node.older == kNone ? oldest_ : nodes_[node.older].newer) = node.newer;
  (node.newer == kNone ? newest_ : nodes_[node.newer].older) = node.older;
  node.older = node.newer = kNone;
  node.listed = false;
}

// Puts the node where its last use belongs in the list of evictable nodes, or takes it out. A node gets in at
// the new end when a sequence leaves it, near the old end when its last child was evicted: both searches are
// short.
void RadixCache::update_listing(NodeId id) {
  unlist(id);
  Node& node = nodes_[id];
  if (node.num_children > 0 || node.pins > 0) return;
  NodeId older = newest_;
  if (oldest_ != kNone && nodes_[oldest_].last_used >= node.last_used) {
    older = kNone;
  } else {
    while (older != kNone && nodes_[older].last_used > node.last_used) older = nodes_[older].older;
  }
  node.older = older;
  node.newer = older == kNone ? oldest_ : nodes_[older].newer;
  (node.older == kNone ? oldest_ : nodes_[node.older].newer) = id;
  (node.newer == kNone ? newest_ : nodes_[node.newer].older) = id;
  node.listed = true;
}

RadixCache::Match RadixCache::match(NodeId root, std::span<const TokenId> tokens) {
  Match best;
  best.node = root;

  // run_start[g]: from which position on the group's blocks are there without a gap, up to the depth reached.
  // A match of depth d is usable when the window before d, positions > d - window, lies in the run.
  std::array<int32_t, kMaxKvGroups> run_start{};
  const auto extend = [&](NodeId node, int32_t begin, int32_t end) {
    bool usable = true;
    for (int g = 0; g < geometry_.num_groups; ++g) {
      if (!nodes_[node].blocks[g]) run_start[g] = end;
      const int32_t window = geometry_.groups[g].window;
      const int32_t needed = window == 0 ? 0 : std::max(0, end - window + 1);
      usable = usable && run_start[g] <= std::min(needed, begin + geometry_.block_size);
      usable = usable && (window != 0 || nodes_[node].blocks[g]);
    }
    return usable;
  };

  NodeId at = best.node;
  int32_t depth = 0;
  for (;;) {
    const std::span<const TokenId> rest = tokens.subspan(depth);
    if (rest.empty()) break;
    NodeId whole = kNone, partial = kNone;
    int partial_tokens = 0;
    for (NodeId child = buckets_[bucket(at, rest[0])]; child != kNone; child = nodes_[child].next_in_bucket) {
      if (nodes_[child].parent != at) continue;
      const int common = common_prefix(tokens_of(child), rest);
      if (common == geometry_.block_size) {
        whole = child;
        break;
      }
      if (common > partial_tokens) {
        partial = child;
        partial_tokens = common;
      }
    }
    if (whole == kNone) {
      const auto before = run_start;
      if (partial != kNone && extend(partial, depth, depth + partial_tokens) && best.node == at) {
        best.partial = partial;
        best.partial_tokens = partial_tokens;
      }
      run_start = before;
      break;
    }
    nodes_[whole].last_used = ++clock_;
    update_listing(whole);
    const bool usable = extend(whole, depth, depth + geometry_.block_size);
    depth += geometry_.block_size;
    at = whole;
    if (usable) {
      best.node = whole;
      best.num_blocks = depth / geometry_.block_size;
    }
  }
  if (best.partial != kNone) {
    nodes_[best.partial].last_used = ++clock_;
    update_listing(best.partial);
  }
  return best;
}

RadixCache::NodeId RadixCache::insert(NodeId parent, std::span<const TokenId> tokens,
                                      const std::array<BlockRef, kMaxKvGroups>& blocks) {
  SERVAL_CHECK(!tokens.empty() && static_cast<int>(tokens.size()) <= geometry_.block_size, tokens.size());
  const bool is_whole = static_cast<int>(tokens.size()) == geometry_.block_size;
  NodeId outgrown = kNone;
  for (NodeId child = buckets_[bucket(parent, tokens[0])]; child != kNone;
       child = nodes_[child].next_in_bucket) {
    if (nodes_[child].parent != parent) continue;
    const int common = common_prefix(tokens_of(child), tokens);
    if (common == static_cast<int>(tokens.size())) {
      if (!is_whole) return kNone;  // a longer or equal one covers this tail
      for (int g = 0; g < geometry_.num_groups; ++g) {
        // A block that was dropped comes back with whoever computed it again.
        if (nodes_[child].blocks[g] || !blocks[g]) continue;
        nodes_[child].blocks[g] = blocks[g];
        pools_[g]->set_cached(blocks[g].id(), true);
      }
      return child;
    }
    if (common == nodes_[child].num_tokens && nodes_[child].pins == 0)
      outgrown = child;  // a tail this block continues
  }
  // The parent must not be what makes room for its own child.
  pin(parent);
  if (outgrown != kNone) remove(outgrown);
  const NodeId id = new_node();
  unpin(parent);
  if (id == kNone) return kNone;
  Node& node = nodes_[id];
  node.num_tokens = static_cast<int32_t>(tokens.size());
  std::copy(tokens.begin(), tokens.end(), tokens_of(id).begin());
  for (int g = 0; g < geometry_.num_groups; ++g) {
    if (!blocks[g]) continue;
    node.blocks[g] = blocks[g];
    pools_[g]->set_cached(blocks[g].id(), true);
  }
  attach(id, parent);
  update_listing(id);
  return id;
}

void RadixCache::pin(NodeId node) {
  ++nodes_[node].pins;
  update_listing(node);
}

void RadixCache::unpin(NodeId node) {
  SERVAL_CHECK(nodes_[node].pins > 0, node);
  --nodes_[node].pins;
  nodes_[node].last_used = ++clock_;
  update_listing(node);
}

bool RadixCache::evict_one(int group) {
  const int before = pools_[group]->num_free();
  if (geometry_.groups[group].window > 0 && evict_inside(group)) return true;
  while (oldest_ != kNone && pools_[group]->num_free() == before) remove(oldest_);
  return pools_[group]->num_free() > before || evict_inside(group);
}

// Sweeps over the nodes: any block that only the cache holds may go, wherever it is in the tree.
bool RadixCache::evict_inside(int group) {
  if (pools_[group]->num_cached_only() == 0) return false;
  for (size_t looked = 0; looked < nodes_.size(); ++looked) {
    window_hand_ = (window_hand_ + 1) % static_cast<NodeId>(nodes_.size());
    Node& node = nodes_[window_hand_];
    if (!node.in_use || !node.blocks[group] || pools_[group]->refs(node.blocks[group].id()) != 1) continue;
    drop_block(window_hand_, group);
    ++num_evicted_;
    return true;
  }
  return false;
}

void RadixCache::check_invariants() const {
  std::vector<int> children(nodes_.size(), 0);
  size_t in_use = 0, listed = 0;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    if (!node.in_use) continue;
    ++in_use;
    if (node.parent != kNone) {
      SERVAL_CHECK(nodes_[node.parent].in_use, i, node.parent);
      const Node& above = nodes_[node.parent];
      SERVAL_CHECK(above.parent == kNone || above.num_tokens == geometry_.block_size, i);
      ++children[node.parent];
    }
    SERVAL_CHECK(node.listed == (node.num_children == 0 && node.pins == 0), i, node.listed, node.num_children,
                 node.pins);
    for (int g = 0; g < geometry_.num_groups; ++g) {
      if (node.blocks[g]) SERVAL_CHECK(pools_[g]->cached(node.blocks[g].id()), i, g);
    }
  }
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (nodes_[i].in_use)
      SERVAL_CHECK(children[i] == nodes_[i].num_children, i, children[i], nodes_[i].num_children);
  }
  for (NodeId id = oldest_; id != kNone; id = nodes_[id].newer) {
    ++listed;
    const NodeId next = nodes_[id].newer;
    if (next != kNone) SERVAL_CHECK(nodes_[id].last_used <= nodes_[next].last_used, id, next);
  }
  size_t expected = 0;
  for (const Node& node : nodes_) expected += node.in_use && node.listed;
  SERVAL_CHECK(listed == expected, listed, expected);
  SERVAL_CHECK(in_use + free_nodes_.size() == nodes_.size(), in_use, free_nodes_.size());
}

}  // namespace serval
