// The shape of the prefix cache: a tree whose nodes are runs of at most block_size tokens, found by the
// tokens themselves (never by a hash alone). Knows nothing of KV blocks, pins or eviction. Allocates only
// when constructed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/request.h"

namespace serval {

using NodeId = int32_t;
inline constexpr NodeId kNoNode = -1;

// A node with children is full (block_size tokens); roots carry no tokens. The children of a node form a
// treap (Seidel and Aragon, "Randomized search trees", 1996) in lexicographic order of their tokens: the
// child that shares the longest prefix with a query lies on the query's own search path, so an exact and a
// partial match are the same logarithmic walk, however many children a node has. Priorities come from a
// counter, so equal histories give equal trees.
class RadixTree {
 public:
  RadixTree(int max_nodes, int max_roots, int block_size);

  NodeId create_root();
  bool has_room() const { return num_nodes_ < max_nodes_; }  // for one more node that is not a root
  NodeId add_child(NodeId parent, std::span<const TokenId> tokens);
  void remove(NodeId node);  // has no children

  struct Closest {
    NodeId node = kNoNode;
    int common = 0;  // tokens that node and query share from the start
  };
  // The child with the longest common prefix with `tokens`; none when not even the first token is there.
  Closest closest_child(NodeId parent, std::span<const TokenId> tokens) const;

  NodeId parent(NodeId node) const { return nodes_[node].parent; }  // kNoNode: a root
  bool is_leaf(NodeId node) const { return nodes_[node].children == kNoNode; }
  std::span<const TokenId> tokens(NodeId node) const {
    return {tokens_.data() + static_cast<size_t>(node) * block_size_,
            static_cast<size_t>(nodes_[node].num_tokens)};
  }
  int capacity() const { return static_cast<int>(nodes_.size()); }  // node ids are below this
  bool is_used(NodeId node) const { return nodes_[node].used; }

  // Aborts when links, order or counts contradict each other.
  void check_invariants() const;

 private:
  struct Node {
    NodeId parent = kNoNode;
    NodeId children = kNoNode;  // root of their treap
    NodeId left = kNoNode, right = kNoNode;
    uint32_t priority = 0;
    int32_t num_tokens = 0;
    bool used = false;
  };
  NodeId take();
  int check_treap(NodeId node, NodeId parent, uint32_t max_priority) const;

  const int block_size_;
  const int max_nodes_;
  int num_nodes_ = 0;  // without roots
  uint64_t num_added_ = 0;
  std::vector<Node> nodes_;
  std::vector<TokenId> tokens_;  // [capacity, block_size]
  std::vector<NodeId> free_;
};

}  // namespace serval
