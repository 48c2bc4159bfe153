// Token prefixes whose KV is in memory: a tree with one node a block. Inner nodes hold whole blocks, a leaf
// may hold a part of one, so a match is exact to the token (the partial block is copied by whoever takes it).
// Equality of tokens decides, hashes only find. Roots are told apart by cache_salt and class of lengths. Pure (hashes are seeded
// at random, but decide nothing); single-threaded; allocates in its constructor only.
//
// What a call costs depends on the tokens it is about, not on how much is cached: whole blocks are found by
// their parent and all their tokens, the block a match ends in is looked for among the few children of its
// parent that were used last, and every list is left in constant time.
//
// Eviction frees least recently used leaves that no running sequence stands on. A windowed group's blocks go
// from inside the tree, by their own last use: such a node still leads to its children, and a match ends only
// where the window before it is complete. So may, when no leaf is left, the block of a node on which
// sequences stand that computed the same tokens into blocks of their own: all that only the cache holds can
// be had.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/batch.h"
#include "engine/kv_geometry.h"
#include "engine/scheduler/block_pool.h"

namespace serval {

class RadixCache {
 public:
  using NodeId = int32_t;
  static constexpr NodeId kNone = -1;
  // Children of a node that are tried for the part of a block a match ends with: those used last.
  static constexpr int kPartialCandidates = 8;

  // `max_roots`: how many roots may be pinned at once.
  RadixCache(const BlockGeometry& geometry, std::vector<BlockPool*> pools, int max_roots);
  // What the constructor allocates, but for a few bytes.
  static size_t planned_bytes(const BlockGeometry& geometry, int max_roots);
  ~RadixCache();  // gives its blocks back; the pools outlive it
  RadixCache(const RadixCache&) = delete;
  RadixCache& operator=(const RadixCache&) = delete;

  // Where in the cache a sequence's tokens led when they were looked up; holds nothing. Default: nowhere.
  struct Place {
    NodeId node = kNone;
    uint64_t born = 0;  // tells a node from the one that had its number before
    int32_t num_blocks = 0;
  };
  struct Match {
    NodeId node = kNone;     // deepest whole block; the root when none matched
    int32_t num_blocks = 0;  // whole blocks on the path
    NodeId partial = kNone;  // a child of `node` whose first partial_tokens tokens go on matching
    int32_t partial_tokens = 0;
    Place reached;  // the deepest node of whole blocks, usable or not
  };
  // The longest usable prefix of `tokens` below a root. Touches the path and wants the window it ends with.
  Match match(NodeId root, std::span<const TokenId> tokens);

  // Goes on from the place with what was inserted below it since. Returns how many blocks, -1: it is gone.
  int32_t follow(Place& place, std::span<const TokenId> tokens);

  // The root of a salt and of a class of lengths, made when it is not there. A new root keeps the salt by swapping it for
  // a string that has served its time. kNone when nodes ran out.
  NodeId root(std::string& salt, int32_t length_class = 0);
  // Adds the block that follows `parent` (tokens: 1..block_size of them; fewer only for a tail). `blocks` has
  // one block per group, empty where a windowed group has none. Returns the node that now stands for these
  // tokens, or kNone when nothing was added (a tail that is already covered, or nodes ran out).
  NodeId insert(NodeId parent, std::span<const TokenId> tokens,
                const std::array<BlockRef, kMaxKvGroups>& blocks);
  // A match may well end after `num_blocks` blocks, at `end`: the windows before it are evicted by use. Other
  // blocks of windowed groups go first, as soon as sequences have passed them.
  void want_window(NodeId end, int32_t num_blocks);

  const BlockRef& block(NodeId node, int group) const { return nodes_[node].blocks[group]; }
  NodeId parent(NodeId node) const { return nodes_[node].parent; }
  std::span<const TokenId> tokens_of(NodeId node) const {
    return {tokens_.data() + static_cast<size_t>(node) * geometry_.block_size,
            static_cast<size_t>(nodes_[node].num_tokens)};
  }
  // The node that holds the group's block; kNone: the cache does not have it.
  NodeId holder(BlockId block, int group) const { return holders_[group][block]; }

  // A sequence stands on the node: it and its ancestors stay.
  void pin(NodeId node);
  void unpin(NodeId node);

  // Frees at least one block of the group, if any can be. False: none can.
  bool evict_one(int group);
  uint64_t num_evicted_blocks() const { return num_evicted_; }
  // Nodes looked at so far, in whatever list: what the cache costs, for tests.
  uint64_t num_looked_at() const { return num_looked_at_; }

  // Calls visit(block id, group) for every block the cache holds.
  template <class Visit>
  void for_each_block(Visit visit) const {
    for (const Node& node : nodes_) {
      for (int g = 0; node.in_use && g < geometry_.num_groups; ++g) {
        if (node.blocks[g]) visit(node.blocks[g].id(), g);
      }
    }
  }
  void check_invariants() const;

 private:
  struct Node {
    bool in_use = false;
    bool listed = false;
    int32_t num_tokens = 0;
    int32_t num_children = 0;
    int32_t pins = 0;
    int32_t length_class = 0;  // of a root
    uint64_t last_used = 0;
    uint64_t born = 0;
    NodeId parent = kNone;
    NodeId next_in_bucket = kNone, previous_in_bucket = kNone;  // nodes whose hashes fall together
    NodeId last_child = kNone;                                  // the one used last
    NodeId next_child = kNone, previous_child = kNone;          // of the same parent, by last use
    NodeId older = kNone, newer = kNone;                        // in the list of nodes by last use
    std::array<BlockRef, kMaxKvGroups> blocks;
  };
  // From which position on a group's blocks are there without a gap, up to the depth reached.
  using Runs = std::array<int32_t, kMaxKvGroups>;

  size_t bucket(NodeId parent, std::span<const TokenId> tokens) const;
  size_t root_bucket(std::string_view salt, int32_t length_class) const;
  size_t bucket_of(NodeId node) const;
  NodeId find(NodeId parent, std::span<const TokenId> tokens);
  bool step_down(Place& at, std::span<const TokenId> tokens);
  bool extend(Runs& runs, NodeId node, int32_t end) const;
  void match_partial(Match& match, const Runs& runs, std::span<const TokenId> rest);
  NodeId new_node();
  void attach(NodeId node, NodeId parent);
  void detach(NodeId node);
  void enter_children(NodeId node);
  void leave_children(NodeId node);
  void remove(NodeId node);
  void give_block(NodeId node, int group, const BlockRef& block);
  void drop_block(NodeId node, int group);
  void touch(NodeId node);
  void want_block(NodeId node);
  void list_newest(NodeId node);
  void list_oldest(NodeId node);
  void unlist(NodeId node);
  NodeId oldest_leaf();

  const BlockGeometry geometry_;
  const std::array<uint64_t, 2> hash_seed_;
  std::vector<BlockPool*> pools_;
  std::vector<Node> nodes_;
  std::vector<TokenId> tokens_;  // [num nodes, block_size]
  std::vector<NodeId> free_nodes_;
  std::vector<NodeId> buckets_;
  std::vector<std::string> salts_;                         // by node; of roots
  std::array<std::vector<NodeId>, kMaxKvGroups> holders_;  // by block of the group: the node that has it
  // Nodes by last use. A leaf without pins is always among them; those that cannot be evicted may be, and
  // leave when they are met at the old end.
  NodeId oldest_ = kNone, newest_ = kNone;
  uint64_t clock_ = 0;
  uint64_t num_evicted_ = 0;
  uint64_t num_looked_at_ = 0;
};

}  // namespace serval
