#include "engine/scheduler/radix_cache.h"

#include <algorithm>

#include "engine/scheduler/capacity.h"
#include "kernels/base/check.h"

namespace serval {

RadixCache::RadixCache(const BlockGeometry& geometry, std::span<BlockPool> pools, int max_nodes,
                       int max_salts, int max_depth)
    : geometry_(geometry),
      pools_(pools),
      tree_(max_nodes, max_nodes + max_salts, geometry.block_size),  // a root is pinned or has a child
      blocks_(tree_.capacity()),
      pins_(tree_.capacity()),
      salt_of_root_(tree_.capacity()) {
  for (int g = 0; g < geometry.num_groups; ++g) node_of_block_[g].assign(pools[g].num_blocks(), kNoNode);
  path_.reserve(max_depth);
}

NodeId RadixCache::acquire_root(std::string_view salt) {
  auto found = roots_.find(salt);
  if (found == roots_.end()) {
    const NodeId root = tree_.create_root();
    found = roots_.emplace(salt, root).first;
    salt_of_root_[root] = &found->first;
  }
  pin(found->second);
  return found->second;
}

void RadixCache::unpin(NodeId node) {
  SERVAL_CHECK(pins_[node] > 0, node);
  --pins_[node];
  prune(node);
}

RadixCache::Match RadixCache::match(NodeId root, std::span<const TokenId> tokens, int limit) {
  const int block_size = geometry_.block_size;
  path_.clear();
  NodeId node = root, partial = kNoNode;
  int num_tokens = 0;
  while (num_tokens < limit) {
    const int want = std::min(limit - num_tokens, block_size);
    const RadixTree::Closest closest = tree_.closest_child(node, tokens.subspan(num_tokens, want));
    num_tokens += closest.common;
    if (closest.common < block_size) {
      if (closest.common > 0) partial = closest.node;
      break;
    }
    node = closest.node;
    path_.push_back(node);
  }
  const int usable = usable_tokens(num_tokens, partial);
  path_.resize(usable / block_size);
  return {.num_tokens = usable, .path = path_, .partial = usable % block_size > 0 ? partial : kNoNode};
}

// The longest part of a match, whole or a number of full blocks, whose blocks in the windowed groups are
// there. A block missing in a window rules out every shorter part that reaches beyond it too: the window's
// start only moves back.
int RadixCache::usable_tokens(int num_tokens, NodeId partial) const {
  const int block_size = geometry_.block_size;
  const auto node_at = [&](int i) { return i < static_cast<int>(path_.size()) ? path_[i] : partial; };
  for (bool whole = false; !whole;) {
    whole = true;
    for (int g = 0; g < geometry_.num_groups; ++g) {
      if (is_full_group(g)) continue;
      const int first = first_block_seen(geometry_, g, num_tokens);
      for (int i = blocks_for(num_tokens, block_size) - 1; i >= first; --i) {
        if (blocks_[node_at(i)][g]) continue;
        num_tokens = i * block_size;
        whole = false;
        break;
      }
    }
  }
  return num_tokens;
}

NodeId RadixCache::insert(NodeId parent, std::span<const TokenId> tokens, const GroupBlocks& blocks) {
  const auto num_tokens = static_cast<int>(tokens.size());
  const RadixTree::Closest closest = tree_.closest_child(parent, tokens);
  NodeId node = closest.node;
  if (closest.common < num_tokens) {
    if (!make_room()) return kNoNode;
    node = tree_.add_child(parent, tokens);
  } else if (static_cast<int>(tree_.tokens(node).size()) > num_tokens) {
    return kNoNode;
  }
  for (int g = 0; g < geometry_.num_groups; ++g) {
    if (!blocks_[node][g] && blocks[g]) adopt(node, g, blocks[g]);
  }
  return node;
}

void RadixCache::adopt(NodeId node, int group, const BlockRef& block) {
  blocks_[node][group] = block.share();
  pools_[group].set_cached(block.id(), true);
  node_of_block_[group][block.id()] = node;
}

void RadixCache::abandon(NodeId node, int group) {
  BlockRef& block = blocks_[node][group];
  if (!block) return;
  pools_[group].set_cached(block.id(), false);
  node_of_block_[group][block.id()] = kNoNode;
  block.reset();
}

bool RadixCache::evict_one(int group) {
  const BlockId id = pools_[group].oldest_evictable();
  if (id < 0) return false;
  const NodeId node = node_of_block_[group][id];
  ++num_evicted_;
  if (is_full_group(group)) {
    SERVAL_CHECK(tree_.is_leaf(node), "an inner block was let go before its children", node, id);
    for (int g = 0; g < geometry_.num_groups; ++g) abandon(node, g);
  } else {
    abandon(node, group);
  }
  prune(node);
  return true;
}

// Removes the node when nothing speaks for it any more, then its parent likewise.
void RadixCache::prune(NodeId node) {
  while (node != kNoNode && tree_.is_leaf(node) && pins_[node] == 0) {
    for (int g = 0; g < geometry_.num_groups; ++g) {
      if (blocks_[node][g]) return;
    }
    const NodeId parent = tree_.parent(node);
    tree_.remove(node);
    if (parent == kNoNode) {
      roots_.erase(roots_.find(*salt_of_root_[node]));
      salt_of_root_[node] = nullptr;
    }
    node = parent;
  }
}

// Nodes run out before blocks do only where windowed groups leave long paths of nodes without blocks.
bool RadixCache::make_room() {
  while (!tree_.has_room()) {
    bool evicted = false;
    for (int g = 0; g < geometry_.num_groups; ++g) evicted = evicted || evict_one(g);
    if (!evicted) return false;
  }
  return true;
}

void RadixCache::check_invariants(std::span<std::vector<int>> references,
                                  const std::vector<int>& pins) const {
  tree_.check_invariants();
  for (NodeId node = 0; node < tree_.capacity(); ++node) {
    SERVAL_CHECK(pins_[node] == pins[node], "pins of node", node, pins_[node], pins[node]);
    if (!tree_.is_used(node)) {
      SERVAL_CHECK(pins_[node] == 0 && !salt_of_root_[node], node, pins_[node]);
      for (const BlockRef& block : blocks_[node]) SERVAL_CHECK(!block, node, block.id());
      continue;
    }
    const bool is_root = tree_.parent(node) == kNoNode;
    SERVAL_CHECK(is_root == (salt_of_root_[node] != nullptr), node);
    bool has_reason = pins_[node] > 0 || !tree_.is_leaf(node);
    for (int g = 0; g < geometry_.num_groups; ++g) {
      const BlockRef& block = blocks_[node][g];
      SERVAL_CHECK(is_root || block || !is_full_group(g), "a node without its full-attention block", node, g);
      if (!block) continue;
      SERVAL_CHECK(!is_root && node_of_block_[g][block.id()] == node && pools_[g].is_cached(block.id()), node,
                   g, block.id());
      ++references[g][block.id()];
      has_reason = true;
    }
    SERVAL_CHECK(has_reason, "a node that nothing speaks for", node);
  }
  for (int g = 0; g < geometry_.num_groups; ++g) {
    std::vector<bool> passed(tree_.capacity());
    for (BlockId id = pools_[g].oldest_evictable(); id >= 0; id = pools_[g].next_evictable(id)) {
      const NodeId node = node_of_block_[g][id];
      SERVAL_CHECK(node != kNoNode && blocks_[node][g].id() == id, id, node);
      if (!is_full_group(g)) continue;
      SERVAL_CHECK(!passed[tree_.parent(node)], "a node would be evicted before its child", node, id);
      passed[node] = true;
    }
  }
  // An evictable node's children are evictable: nobody holds a child without its parent.
  for (NodeId node = 0; node < tree_.capacity(); ++node) {
    if (!tree_.is_used(node) || tree_.parent(node) == kNoNode) continue;
    const NodeId parent = tree_.parent(node);
    for (int g = 0; g < geometry_.num_groups; ++g) {
      if (!is_full_group(g) || !blocks_[parent][g]) continue;
      SERVAL_CHECK(pools_[g].num_holders(blocks_[node][g].id()) == 0 ||
                       pools_[g].num_holders(blocks_[parent][g].id()) > 0,
                   "a held block behind one that is not", node, parent);
    }
  }
}

}  // namespace serval
