#include "engine/scheduler/radix_cache.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <random>
#include <utility>

#include "kernels/base/check.h"

namespace serval {
namespace {

// A node for every block there can be, twice. Where all groups have windows most nodes of a long conversation
// have lost their block and only lead on: there are more of them, and each is small beside a block.
int num_nodes_for(const BlockGeometry& geometry, int max_roots) {
  int total = 0;
  bool all_forget = true;
  for (int g = 0; g < geometry.num_groups; ++g) {
    total += 2 * geometry.groups[g].num_blocks * (geometry.rule(g).span() / geometry.block_size);
    all_forget = all_forget && geometry.rule(g).forgets();
  }
  return 16 + max_roots + total * (all_forget ? 8 : 1);
}

size_t num_buckets_for(size_t num_nodes) {
  return std::max<size_t>(64, std::bit_ceil(num_nodes));
}

std::array<uint64_t, 2> random_seed() {
  std::random_device random;
  const auto word = [&] { return static_cast<uint64_t>(random()) << 32 | random(); };
  return {word(), word() | 1};
}

// The two halves of the product, folded: every bit of the input reaches every bit of the hash.
uint64_t fold(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

int common_prefix(std::span<const TokenId> a, std::span<const TokenId> b) {
  const size_t n = std::min(a.size(), b.size());
  return static_cast<int>(std::mismatch(a.begin(), a.begin() + n, b.begin()).first - a.begin());
}

}  // namespace

RadixCache::RadixCache(const BlockGeometry& geometry, std::vector<BlockPool*> pools, int max_roots)
    : geometry_(geometry),
      hash_seed_(random_seed()),
      pools_(std::move(pools)),
      nodes_(num_nodes_for(geometry, max_roots)) {
  tokens_.resize(nodes_.size() * geometry_.block_size);
  salts_.resize(nodes_.size());
  for (int g = 0; g < geometry_.num_groups; ++g) holders_[g].assign(geometry_.groups[g].num_blocks, kNone);
  free_nodes_.reserve(nodes_.size());
  for (int i = static_cast<int>(nodes_.size()) - 1; i >= 0; --i) free_nodes_.push_back(i);
  buckets_.assign(num_buckets_for(nodes_.size()), kNone);
}

size_t RadixCache::planned_bytes(const BlockGeometry& geometry, int max_roots) {
  const size_t nodes = num_nodes_for(geometry, max_roots);
  const size_t of_node =
      sizeof(Node) + geometry.block_size * sizeof(TokenId) + sizeof(std::string) + sizeof(NodeId);
  size_t bytes = nodes * of_node + num_buckets_for(nodes) * sizeof(NodeId);
  for (int g = 0; g < geometry.num_groups; ++g) bytes += geometry.groups[g].num_blocks * sizeof(NodeId);
  return bytes;
}

RadixCache::~RadixCache() {
  for (size_t i = 0; i < nodes_.size(); ++i) {
    for (int g = 0; g < geometry_.num_groups; ++g) drop_block(static_cast<NodeId>(i), g);
  }
}

// --- finding ---

size_t RadixCache::bucket(NodeId parent, std::span<const TokenId> tokens) const {
  uint64_t h = hash_seed_[0] ^ static_cast<uint32_t>(parent);
  for (const TokenId token : tokens) h = fold(h ^ static_cast<uint32_t>(token), hash_seed_[1]) + 1;
  return static_cast<size_t>(h) & (buckets_.size() - 1);
}

size_t RadixCache::root_bucket(std::string_view salt, int32_t length_class) const {
  uint64_t h = fold(hash_seed_[0] + salt.size(), hash_seed_[1]) + static_cast<uint32_t>(length_class);
  for (const char c : salt) h = fold(h ^ static_cast<unsigned char>(c), hash_seed_[1]) + 1;
  return static_cast<size_t>(h) & (buckets_.size() - 1);
}

size_t RadixCache::bucket_of(NodeId node) const {
  const NodeId parent = nodes_[node].parent;
  return parent == kNone ? root_bucket(salts_[node], nodes_[node].length_class) : bucket(parent, tokens_of(node));
}

// The child that has exactly these tokens.
RadixCache::NodeId RadixCache::find(NodeId parent, std::span<const TokenId> tokens) {
  NodeId id = buckets_[bucket(parent, tokens)];
  for (; id != kNone; id = nodes_[id].next_in_bucket) {
    ++num_looked_at_;
    if (nodes_[id].parent == parent && std::ranges::equal(tokens_of(id), tokens)) break;
  }
  return id;
}

// Goes on to a node whose tokens match up to position `end`. True when a match that ends there is usable.
bool RadixCache::extend(Runs& runs, NodeId node, int32_t end) const {
  bool usable = true;
  for (int g = 0; g < geometry_.num_groups; ++g) {
    const KvRule rule = geometry_.rule(g);
    const bool is_kept = end <= rule.num_kept() * rule.span();
    if (!nodes_[node].blocks[g]) runs[g] = std::max(runs[g], is_kept ? std::numeric_limits<int32_t>::max() : end);
    usable = usable && rule.may_match(end, runs[g]);
  }
  return usable;
}

RadixCache::Match RadixCache::match(NodeId root, std::span<const TokenId> tokens) {
  Match best;
  best.node = root;
  Runs runs{}, runs_of_best{};
  Place at{root, nodes_[root].born, 0};
  touch(root);
  while (step_down(at, tokens)) {
    touch(at.node);
    if (!extend(runs, at.node, at.num_blocks * geometry_.block_size)) continue;
    best.node = at.node;
    best.num_blocks = at.num_blocks;
    runs_of_best = runs;
  }
  list_newest(at.node);
  best.reached = at;
  want_window(best.node, best.num_blocks);
  if (geometry_.may_copy_part())
    match_partial(best, runs_of_best, tokens.subspan(best.num_blocks * geometry_.block_size));
  return best;
}

// To the child that holds the next whole block of `tokens`.
bool RadixCache::step_down(Place& at, std::span<const TokenId> tokens) {
  const size_t size = geometry_.block_size, begin = at.num_blocks * size;
  const NodeId child = begin + size <= tokens.size() ? find(at.node, tokens.subspan(begin, size)) : kNone;
  if (child == kNone) return false;
  at = {child, nodes_[child].born, at.num_blocks + 1};
  return true;
}

int32_t RadixCache::follow(Place& place, std::span<const TokenId> tokens) {
  if (place.node == kNone) return 0;
  if (nodes_[place.node].born != place.born) return -1;
  int32_t gained = 0;
  while (step_down(place, tokens)) ++gained;
  return gained;
}

// Of the children used last, the usable one that shares most of what follows the match.
void RadixCache::match_partial(Match& match, const Runs& runs, std::span<const TokenId> rest) {
  const int32_t begin = match.num_blocks * geometry_.block_size;
  NodeId child = nodes_[match.node].last_child;
  for (int i = 0; i < kPartialCandidates && child != kNone; ++i, child = nodes_[child].next_child) {
    ++num_looked_at_;
    const int common = common_prefix(tokens_of(child), rest);
    if (common <= match.partial_tokens) continue;
    Runs with_child = runs;
    if (!extend(with_child, child, begin + common)) continue;
    match.partial = child;
    match.partial_tokens = common;
  }
  if (match.partial == kNone) return;
  touch(match.partial);
  list_newest(match.partial);
  want_block(match.partial);
}

// --- growing ---

RadixCache::NodeId RadixCache::new_node() {
  if (const NodeId oldest = free_nodes_.empty() ? oldest_leaf() : kNone; oldest != kNone) remove(oldest);
  if (free_nodes_.empty()) return kNone;
  const NodeId id = free_nodes_.back();
  free_nodes_.pop_back();
  nodes_[id].in_use = true;
  nodes_[id].born = ++clock_;
  return id;
}

RadixCache::NodeId RadixCache::root(std::string& salt, int32_t length_class) {
  for (NodeId id = buckets_[root_bucket(salt, length_class)]; id != kNone; id = nodes_[id].next_in_bucket) {
    ++num_looked_at_;
    if (nodes_[id].parent == kNone && nodes_[id].length_class == length_class && salts_[id] == salt) return id;
  }
  const NodeId id = new_node();
  if (id == kNone) return kNone;
  std::swap(salts_[id], salt);
  nodes_[id].length_class = length_class;
  attach(id, kNone);
  touch(id);
  list_newest(id);
  return id;
}

RadixCache::NodeId RadixCache::insert(NodeId parent, std::span<const TokenId> tokens,
                                      const std::array<BlockRef, kMaxKvGroups>& blocks) {
  SERVAL_CHECK(!tokens.empty() && static_cast<int>(tokens.size()) <= geometry_.block_size, tokens.size());
  const bool is_whole = static_cast<int>(tokens.size()) == geometry_.block_size;
  if (const NodeId same = find(parent, tokens); same != kNone) {
    // A block that was dropped comes back with whoever computed it again.
    for (int g = 0; g < geometry_.num_groups; ++g) {
      if (!nodes_[same].blocks[g]) give_block(same, g, blocks[g]);
    }
    return is_whole ? same : kNone;
  }
  pin(parent);  // it must not be what makes room for its own child
  NodeId next = nodes_[parent].last_child;
  bool is_covered = false;
  for (int i = 0; i < kPartialCandidates && next != kNone && !is_covered; ++i) {
    ++num_looked_at_;
    const NodeId child = std::exchange(next, nodes_[next].next_child);
    const int common = common_prefix(tokens_of(child), tokens);
    is_covered = common == static_cast<int>(tokens.size());
    for (int g = 0; g < geometry_.num_groups; ++g)
      is_covered = is_covered && (nodes_[child].blocks[g] || !blocks[g]);
    // A tail that these tokens continue.
    if (common == nodes_[child].num_tokens && nodes_[child].pins == 0) remove(child);
  }
  const NodeId id = is_covered ? kNone : new_node();
  unpin(parent);
  if (id == kNone) return kNone;
  nodes_[id].num_tokens = static_cast<int32_t>(tokens.size());
  std::copy(tokens.begin(), tokens.end(),
            tokens_.begin() + static_cast<ptrdiff_t>(id) * geometry_.block_size);
  for (int g = 0; g < geometry_.num_groups; ++g) give_block(id, g, blocks[g]);
  if (!is_whole) want_block(id);  // a tail is where a sequence ended
  attach(id, parent);
  touch(id);
  list_newest(id);
  return id;
}

void RadixCache::attach(NodeId id, NodeId parent) {
  Node& node = nodes_[id];
  node.parent = parent;
  NodeId& head = buckets_[bucket_of(id)];
  node.next_in_bucket = head;
  if (head != kNone) nodes_[head].previous_in_bucket = id;
  head = id;
  if (parent == kNone) return;
  ++nodes_[parent].num_children;
  enter_children(id);
}

void RadixCache::detach(NodeId id) {
  const Node& node = nodes_[id];
  const NodeId next = node.next_in_bucket, previous = node.previous_in_bucket;
  (previous == kNone ? buckets_[bucket_of(id)] : nodes_[previous].next_in_bucket) = next;
  if (next != kNone) nodes_[next].previous_in_bucket = previous;
  if (node.parent == kNone) return;
  leave_children(id);
  Node& parent = nodes_[node.parent];
  // The parent was used before its children, and this was the oldest leaf.
  if (--parent.num_children == 0 && parent.pins == 0 && !parent.listed) list_oldest(node.parent);
}

void RadixCache::enter_children(NodeId id) {
  Node& node = nodes_[id];
  NodeId& first = nodes_[node.parent].last_child;
  node.previous_child = kNone;
  node.next_child = first;
  if (first != kNone) nodes_[first].previous_child = id;
  first = id;
}

void RadixCache::leave_children(NodeId id) {
  const Node& node = nodes_[id];
  (node.previous_child == kNone ? nodes_[node.parent].last_child : nodes_[node.previous_child].next_child) =
      node.next_child;
  if (node.next_child != kNone) nodes_[node.next_child].previous_child = node.previous_child;
}

void RadixCache::give_block(NodeId node, int group, const BlockRef& block) {
  if (!block) return;
  SERVAL_CHECK(holders_[group][block.id()] == kNone, node, group, block.id());
  nodes_[node].blocks[group] = block;
  holders_[group][block.id()] = node;
  pools_[group]->set_cached(block.id(), true);
}

// --- use ---

void RadixCache::pin(NodeId node) {
  ++nodes_[node].pins;
}

void RadixCache::unpin(NodeId node) {
  SERVAL_CHECK(nodes_[node].pins > 0, node);
  --nodes_[node].pins;
  touch(node);
  list_newest(node);
}

// A node that is used now. Where that is not the last of a path, a child used after it keeps the node from
// eviction longer than its place in a list would.
void RadixCache::touch(NodeId id) {
  Node& node = nodes_[id];
  node.last_used = ++clock_;
  unlist(id);
  if (node.parent == kNone || nodes_[node.parent].last_child == id) return;
  leave_children(id);
  enter_children(id);
}

void RadixCache::want_window(NodeId end, int32_t num_blocks) {
  for (int g = 0; g < geometry_.num_groups; ++g) {
    const KvRule rule = geometry_.rule(g);
    if (!rule.forgets()) continue;
    // A match ends at the last whole block, which of a state may lie further up.
    const int32_t whole = num_blocks * geometry_.block_size / rule.span() * rule.span();
    const int32_t first = rule.first_needed(whole) * rule.span(), kept_end = rule.num_kept() * rule.span();
    NodeId node = end;
    for (int32_t at = num_blocks * geometry_.block_size; at > (kept_end > 0 ? 0 : first); at -= geometry_.block_size) {
      if ((at > first || at <= kept_end) && nodes_[node].blocks[g])
        pools_[g]->set_wanted(nodes_[node].blocks[g].id());
      node = nodes_[node].parent;
    }
  }
}

void RadixCache::want_block(NodeId node) {
  for (int g = 0; g < geometry_.num_groups; ++g) {
    if (nodes_[node].blocks[g]) pools_[g]->set_wanted(nodes_[node].blocks[g].id());
  }
}

void RadixCache::list_newest(NodeId id) {
  unlist(id);
  Node& node = nodes_[id];
  node.older = newest_;
  (newest_ == kNone ? oldest_ : nodes_[newest_].newer) = id;
  newest_ = id;
  node.listed = true;
}

void RadixCache::list_oldest(NodeId id) {
  Node& node = nodes_[id];
  node.newer = oldest_;
  (oldest_ == kNone ? newest_ : nodes_[oldest_].older) = id;
  oldest_ = id;
  node.listed = true;
}

void RadixCache::unlist(NodeId id) {
  Node& node = nodes_[id];
  if (!node.listed) return;
  (node.older == kNone ? oldest_ : nodes_[node.older].newer) = node.newer;
  (node.newer == kNone ? newest_ : nodes_[node.newer].older) = node.older;
  node.older = node.newer = kNone;
  node.listed = false;
}

// --- eviction ---

// The least recently used leaf without pins. Nodes that are older and cannot go leave the list: one comes
// back when its last pin or its last child goes.
RadixCache::NodeId RadixCache::oldest_leaf() {
  while (oldest_ != kNone && (nodes_[oldest_].num_children > 0 || nodes_[oldest_].pins > 0)) {
    ++num_looked_at_;
    unlist(oldest_);
  }
  return oldest_;
}

void RadixCache::drop_block(NodeId node, int group) {
  BlockRef& block = nodes_[node].blocks[group];
  if (!block) return;
  pools_[group]->set_cached(block.id(), false);
  holders_[group][block.id()] = kNone;
  block = BlockRef();
}

void RadixCache::remove(NodeId id) {
  Node& node = nodes_[id];
  SERVAL_CHECK(node.in_use && node.num_children == 0 && node.pins == 0, id, node.num_children, node.pins);
  ++num_looked_at_;
  unlist(id);
  for (int g = 0; g < geometry_.num_groups; ++g) {
    num_evicted_ += node.blocks[g] ? 1 : 0;
    drop_block(id, g);
  }
  detach(id);
  node = Node{};
  free_nodes_.push_back(id);
}

bool RadixCache::evict_one(int group) {
  BlockPool& pool = *pools_[group];
  if (pool.num_cached_only() == 0) return false;
  const int before = pool.num_free();
  while (!geometry_.rule(group).forgets() && pool.num_free() == before && oldest_leaf() != kNone)
    remove(oldest_leaf());
  if (pool.num_free() > before) return true;
  const BlockId block = pool.oldest_cached_only();
  drop_block(holders_[group][block], group);
  ++num_evicted_;
  return true;
}

void RadixCache::check_invariants() const {
  std::vector<int> children(nodes_.size(), 0), walked(nodes_.size(), 0);
  size_t in_use = 0, listed = 0, bucketed = 0;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    if (!node.in_use) continue;
    ++in_use;
    listed += node.listed;
    if (node.parent != kNone) {
      SERVAL_CHECK(nodes_[node.parent].in_use, i, node.parent);
      const Node& above = nodes_[node.parent];
      SERVAL_CHECK(above.parent == kNone || above.num_tokens == geometry_.block_size, i);
      ++children[node.parent];
    }
    for (NodeId child = node.last_child; child != kNone; child = nodes_[child].next_child) {
      SERVAL_CHECK(nodes_[child].parent == static_cast<NodeId>(i), i, child);
      const NodeId next = nodes_[child].next_child;
      if (next != kNone) SERVAL_CHECK(nodes_[next].last_used < nodes_[child].last_used, i, child, next);
      ++walked[i];
    }
    SERVAL_CHECK(node.listed || node.num_children > 0 || node.pins > 0, i);
    for (int g = 0; g < geometry_.num_groups; ++g) {
      if (!node.blocks[g]) continue;
      SERVAL_CHECK(pools_[g]->cached(node.blocks[g].id()), i, g);
      SERVAL_CHECK(holders_[g][node.blocks[g].id()] == static_cast<NodeId>(i), i, g);
    }
  }
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (!nodes_[i].in_use) continue;
    SERVAL_CHECK(children[i] == nodes_[i].num_children && walked[i] == children[i], i, children[i],
                 walked[i]);
  }
  for (NodeId id = oldest_; id != kNone; id = nodes_[id].newer, --listed) {
    const NodeId next = nodes_[id].newer;
    if (next != kNone) SERVAL_CHECK(nodes_[id].last_used < nodes_[next].last_used, id, next);
  }
  SERVAL_CHECK(listed == 0, listed);
  for (size_t b = 0; b < buckets_.size(); ++b) {
    for (NodeId id = buckets_[b]; id != kNone; id = nodes_[id].next_in_bucket, ++bucketed)
      SERVAL_CHECK(bucket_of(id) == b, b, id);
  }
  SERVAL_CHECK(bucketed == in_use, bucketed, in_use);
  SERVAL_CHECK(in_use + free_nodes_.size() == nodes_.size(), in_use, free_nodes_.size());
}

}  // namespace serval
