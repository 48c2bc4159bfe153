#include "engine/scheduler/radix_tree.h"

#include <algorithm>
#include <compare>

#include "kernels/base/check.h"

namespace serval {
namespace {

int common_prefix(std::span<const TokenId> a, std::span<const TokenId> b) {
  const size_t most = std::min(a.size(), b.size());
  size_t i = 0;
  while (i < most && a[i] == b[i]) ++i;
  return static_cast<int>(i);
}

// Is `a` before `b`, given how much they share? A proper prefix comes first.
bool is_before(std::span<const TokenId> a, std::span<const TokenId> b, int common) {
  const auto i = static_cast<size_t>(common);
  return i == a.size() ? i < b.size() : i < b.size() && a[i] < b[i];
}

bool is_before(std::span<const TokenId> a, std::span<const TokenId> b) {
  return is_before(a, b, common_prefix(a, b));
}

// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
uint32_t scramble(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return static_cast<uint32_t>((x ^ (x >> 31)) >> 32);
}

}  // namespace

RadixTree::RadixTree(int max_nodes, int max_roots, int block_size)
    : block_size_(block_size),
      max_nodes_(max_nodes),
      nodes_(max_nodes + max_roots),
      tokens_(nodes_.size() * static_cast<size_t>(block_size)) {
  free_.reserve(nodes_.size());
  for (NodeId node = capacity() - 1; node >= 0; --node) free_.push_back(node);
}

NodeId RadixTree::take() {
  SERVAL_CHECK(!free_.empty(), max_nodes_, num_nodes_);
  const NodeId node = free_.back();
  free_.pop_back();
  nodes_[node] = {.priority = scramble(num_added_++), .used = true};
  return node;
}

NodeId RadixTree::create_root() {
  return take();
}

NodeId RadixTree::add_child(NodeId parent, std::span<const TokenId> tokens) {
  SERVAL_CHECK(has_room() && !tokens.empty() && tokens.size() <= static_cast<size_t>(block_size_), num_nodes_,
               tokens.size());
  const bool parent_is_root = nodes_[parent].parent == kNoNode;
  SERVAL_CHECK(parent_is_root || nodes_[parent].num_tokens == block_size_, parent, nodes_[parent].num_tokens);
  const NodeId added = take();
  ++num_nodes_;
  Node& node = nodes_[added];
  node.parent = parent;
  node.num_tokens = static_cast<int32_t>(tokens.size());
  std::copy(tokens.begin(), tokens.end(), tokens_.begin() + static_cast<int64_t>(added) * block_size_);

  // Down to where its priority belongs, then split what is below into smaller and larger.
  NodeId* link = &nodes_[parent].children;
  while (*link != kNoNode && nodes_[*link].priority >= node.priority) {
    Node& at = nodes_[*link];
    link = is_before(tokens, this->tokens(*link)) ? &at.left : &at.right;
  }
  NodeId below = *link;
  *link = added;
  NodeId *smaller = &node.left, *larger = &node.right;
  while (below != kNoNode) {
    if (is_before(tokens, this->tokens(below))) {
      *larger = below;
      larger = &nodes_[below].left;
      below = *larger;
    } else {
      *smaller = below;
      smaller = &nodes_[below].right;
      below = *smaller;
    }
  }
  *smaller = *larger = kNoNode;
  return added;
}

void RadixTree::remove(NodeId removed) {
  Node& node = nodes_[removed];
  SERVAL_CHECK(node.used && node.children == kNoNode, removed, node.used);
  if (node.parent != kNoNode) {
    NodeId* link = &nodes_[node.parent].children;
    while (*link != removed) {
      SERVAL_CHECK(*link != kNoNode, "a node is not among its parent's children", removed);
      link = is_before(tokens(removed), tokens(*link)) ? &nodes_[*link].left : &nodes_[*link].right;
    }
    // Merge its two sides in its place.
    NodeId left = node.left, right = node.right;
    while (left != kNoNode && right != kNoNode) {
      if (nodes_[left].priority >= nodes_[right].priority) {
        *link = left;
        link = &nodes_[left].right;
        left = *link;
      } else {
        *link = right;
        link = &nodes_[right].left;
        right = *link;
      }
    }
    *link = left != kNoNode ? left : right;
    --num_nodes_;
  }
  node = {};
  free_.push_back(removed);
}

RadixTree::Closest RadixTree::closest_child(NodeId parent, std::span<const TokenId> query) const {
  Closest best;
  for (NodeId at = nodes_[parent].children; at != kNoNode;) {
    const std::span<const TokenId> found = tokens(at);
    const int common = common_prefix(query, found);
    if (common > best.common) best = {at, common};
    if (static_cast<size_t>(common) == query.size()) break;
    at = is_before(query, found, common) ? nodes_[at].left : nodes_[at].right;
  }
  return best;
}

int RadixTree::check_treap(NodeId node, NodeId parent, uint32_t max_priority) const {
  if (node == kNoNode) return 0;
  const Node& n = nodes_[node];
  SERVAL_CHECK(n.used && n.parent == parent && n.priority <= max_priority, node, parent, n.parent,
               n.priority);
  SERVAL_CHECK(n.num_tokens > 0 && n.num_tokens <= block_size_, node, n.num_tokens);
  SERVAL_CHECK(n.children == kNoNode || n.num_tokens == block_size_, node, n.num_tokens);
  SERVAL_CHECK(n.left == kNoNode || is_before(tokens(n.left), tokens(node)), node, n.left);
  SERVAL_CHECK(n.right == kNoNode || is_before(tokens(node), tokens(n.right)), node, n.right);
  return 1 + check_treap(n.left, parent, n.priority) + check_treap(n.right, parent, n.priority);
}

void RadixTree::check_invariants() const {
  int used = 0, linked = 0, roots = 0;
  for (NodeId node = 0; node < capacity(); ++node) {
    if (!nodes_[node].used) continue;
    ++used;
    roots += nodes_[node].parent == kNoNode;
    linked += check_treap(nodes_[node].children, node, UINT32_MAX);
  }
  SERVAL_CHECK(linked == num_nodes_ && linked + roots == used, linked, num_nodes_, roots, used);
  SERVAL_CHECK(static_cast<int>(free_.size()) == capacity() - used, free_.size(), capacity(), used);
}

}  // namespace serval
