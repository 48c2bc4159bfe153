// Which token prefixes have their KV in which blocks, and what to forget first. Knows nothing of sequences,
// slots or time. Single-threaded; allocates only when constructed and when a new salt is seen.
#pragma once

#include <array>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/batch.h"
#include "engine/scheduler/block_pool.h"
#include "engine/scheduler/radix_tree.h"

namespace serval {

using GroupBlocks = std::array<BlockRef, kMaxKvGroups>;

// One node per block: a full one, or the partial tail of a sequence that ended. A node holds a reference to
// its block in every group that still has it. In a full-attention group it always has: the node goes when the
// block goes. A windowed group's block may be evicted alone; the node stays for the tokens' sake while it has
// blocks in other groups, children or pins.
//
// What may be evicted is decided by references alone, and in which order by the pool: oldest first by the
// moment the last holder let go. For full groups this only ever meets leaves, because of two rules that
// holders keep:
//   1. whoever holds a node's full-group block holds those of all its ancestors;
//   2. references are let go deepest first.
class RadixCache {
 public:
  // `pools` has one entry per group and outlives the cache. At most `max_nodes` nodes; `max_salts` bounds the
  // roots that are pinned at once, and `max_depth` the nodes from a root to a leaf.
  RadixCache(const BlockGeometry& geometry, std::span<BlockPool> pools, int max_nodes, int max_salts,
             int max_depth);

  // The root of everything cached under this salt (opaque bytes), pinned: pair with unpin.
  NodeId acquire_root(std::string_view salt);
  // A pinned node stays, though its windowed blocks may go.
  void pin(NodeId node) { ++pins_[node]; }
  void unpin(NodeId node);

  struct Match {
    int num_tokens = 0;
    std::span<const NodeId> path;  // nodes of the full blocks, from the root down; valid until the next call
    NodeId partial =
        kNoNode;  // when num_tokens is not a multiple of the block size: shares that many tokens more
  };
  // The longest cached prefix of tokens[0..limit) from which computing can go on: every full-attention block
  // of it is there, and the blocks of a windowed group that a row at position num_tokens still sees. Holds
  // nothing: share blocks before anything else happens.
  Match match(NodeId root, std::span<const TokenId> tokens, int limit);

  // Says that `blocks` hold the KV of `tokens` (a full block, or a partial tail) behind `parent`, which the
  // caller has pinned, and returns the node of these tokens. When there is one already it keeps its own
  // blocks and takes ours only where it has none. kNoNode: no node was to be had, or the tail is covered by a
  // longer node.
  NodeId insert(NodeId parent, std::span<const TokenId> tokens, const GroupBlocks& blocks);

  // Gives the oldest evictable block of the group back to its pool; false when there is none.
  bool evict_one(int group);

  const BlockRef& block(NodeId node, int group) const { return blocks_[node][group]; }
  NodeId parent(NodeId node) const { return tree_.parent(node); }
  std::span<const TokenId> tokens(NodeId node) const { return tree_.tokens(node); }
  uint64_t num_evicted() const { return num_evicted_; }

  // Aborts on contradictions. Adds the cache's own references to `references[group][block]`; `pins[node]` are
  // those held outside.
  void check_invariants(std::span<std::vector<int>> references, const std::vector<int>& pins) const;
  int num_nodes() const { return tree_.capacity(); }  // node ids are below this

 private:
  bool is_full_group(int group) const { return geometry_.groups[group].window == 0; }
  int usable_tokens(int num_tokens, NodeId partial) const;
  void adopt(NodeId node, int group, const BlockRef& block);
  void abandon(NodeId node, int group);
  void prune(NodeId node);
  bool make_room();

  const BlockGeometry geometry_;
  const std::span<BlockPool> pools_;
  RadixTree tree_;
  std::vector<GroupBlocks> blocks_;  // by node
  std::vector<int32_t> pins_;        // by node
  std::array<std::vector<NodeId>, kMaxKvGroups> node_of_block_;
  std::map<std::string, NodeId, std::less<>> roots_;
  std::vector<const std::string*> salt_of_root_;  // by node; keys of roots_
  std::vector<NodeId> path_;                      // of the last match
  uint64_t num_evicted_ = 0;
};

}  // namespace serval
