// The prefix cache by itself: what it finds, what it forgets first and what that costs, against a model of
// it that is plain and slow, and by example.

#include "engine/scheduler/radix_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <set>

namespace serval {
namespace {

using Tokens = std::vector<TokenId>;
using NodeId = RadixCache::NodeId;
constexpr NodeId kNone = RadixCache::kNone;

BlockGeometry geometry_of(int block_size, std::vector<KvGroupGeometry> groups) {
  BlockGeometry geometry;
  geometry.block_size = block_size;
  geometry.num_groups = static_cast<int>(groups.size());
  std::copy(groups.begin(), groups.end(), geometry.groups);
  return geometry;
}

// A cache over pools, and what a scheduler does with them for one sequence.
struct Cached {
  explicit Cached(const BlockGeometry& g) : geometry(g), pools(make_pools(g)), cache(g, borrow(), 4) {}

  static std::vector<std::unique_ptr<BlockPool>> make_pools(const BlockGeometry& g) {
    std::vector<std::unique_ptr<BlockPool>> pools;
    for (int i = 0; i < g.num_groups; ++i)
      pools.push_back(std::make_unique<BlockPool>(g.groups[i].num_blocks));
    return pools;
  }
  std::vector<BlockPool*> borrow() {
    std::vector<BlockPool*> result;
    for (const auto& pool : pools) result.push_back(pool.get());
    return result;
  }
  NodeId root(std::string salt = "") { return cache.root(salt); }
  RadixCache::Match match(const Tokens& tokens, const std::string& salt = "") {
    const RadixCache::Match found = cache.match(root(salt), tokens);
    cache.check_invariants();
    return found;
  }
  BlockRef allocate(int group) {
    BlockRef block = pools[group]->allocate();
    if (!block && cache.evict_one(group)) block = pools[group]->allocate();
    return block;
  }
  std::array<BlockRef, kMaxKvGroups> allocate_all() {
    std::array<BlockRef, kMaxKvGroups> blocks;
    for (int g = 0; g < geometry.num_groups; ++g) blocks[g] = allocate(g);
    return blocks;
  }
  // Computes all of `tokens` and leaves it to the cache; returns how many tokens were found there.
  int serve(const Tokens& tokens, const std::string& salt = "") {
    const NodeId top = root(salt);
    cache.pin(top);
    const RadixCache::Match found = cache.match(top, tokens);
    NodeId at = found.node;
    cache.pin(at);
    const auto size = static_cast<size_t>(geometry.block_size);
    for (size_t begin = found.num_blocks * size; begin < tokens.size() && at != kNone; begin += size) {
      const size_t count = std::min(size, tokens.size() - begin);
      const NodeId next = cache.insert(at, std::span(tokens).subspan(begin, count), allocate_all());
      if (count < size) break;
      if (next != kNone) cache.pin(next);
      cache.unpin(at);
      at = next;
    }
    if (at != kNone) cache.unpin(at);
    cache.unpin(top);
    return found.num_blocks * geometry.block_size + found.partial_tokens;
  }

  BlockGeometry geometry;
  std::vector<std::unique_ptr<BlockPool>> pools;
  RadixCache cache;
};

Tokens numbers(int count, int first) {
  Tokens tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

Tokens joined(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// --- a plain model: nodes in a list, everything by looking at all of them ---

class PlainCache {
 public:
  PlainCache(int block_size, int num_blocks) : size_(block_size), num_blocks_(num_blocks) {}

  struct Node {
    int parent = -1;
    Tokens tokens;  // of a root: its salt
    uint64_t used = 0;
    int pins = 0;
  };

  int root(const Tokens& salt) {
    for (const auto& [id, node] : nodes) {
      if (node.parent == -1 && node.tokens == salt) return id;
    }
    return add(-1, salt);
  }
  std::pair<int, int> match(int root, const Tokens& tokens, int* end) {  // whole blocks, tokens of a partial
    int at = root, whole = 0;
    touch(root);
    for (; (whole + 1) * size_ <= static_cast<int>(tokens.size()); ++whole) {
      const int child =
          child_of(at, Tokens(tokens.begin() + whole * size_, tokens.begin() + (whole + 1) * size_));
      if (child < 0) break;
      touch(at = child);
    }
    const Tokens rest(tokens.begin() + whole * size_, tokens.end());
    int best = -1, most = 0;
    for (const int child : last_used_children(at)) {
      const int common = common_with(child, rest);
      if (common > most) {
        best = child;
        most = common;
      }
    }
    if (best >= 0) touch(best);
    *end = at;
    return {whole, most};
  }
  // -1: a tail that is covered.
  int insert(int parent, const Tokens& tokens) {
    const bool is_whole = static_cast<int>(tokens.size()) == size_;
    if (const int same = child_of(parent, tokens); same >= 0) return is_whole ? same : -1;
    bool covered = false;
    for (const int child : last_used_children(parent)) {
      const int common = common_with(child, tokens);
      covered = common == static_cast<int>(tokens.size());
      if (covered) break;
      if (common == static_cast<int>(nodes[child].tokens.size())) evict(child);
    }
    touch(parent);
    return covered ? -1 : add(parent, tokens);
  }
  void make_room() {
    while (num_held() >= num_blocks_) {
      int oldest = -1;
      for (const auto& [id, node] : nodes) {
        if (node.pins > 0 || has_children(id)) continue;
        if (oldest < 0 || node.used < nodes[oldest].used) oldest = id;
      }
      ASSERT_GE(oldest, 0);
      evict(oldest);
    }
  }
  void touch(int id) { nodes[id].used = ++clock_; }
  int num_held() const {
    return static_cast<int>(std::ranges::count_if(nodes, [](const auto& n) { return n.second.parent >= 0; }));
  }
  std::set<Tokens> paths() const {  // salt, -1, tokens: of every node that holds a block
    std::set<Tokens> result;
    for (const auto& [id, node] : nodes) {
      if (node.parent < 0) continue;
      Tokens path;
      int at = id;
      for (; nodes.at(at).parent >= 0; at = nodes.at(at).parent) path = joined(nodes.at(at).tokens, path);
      result.insert(joined(nodes.at(at).tokens, joined({-1}, path)));
    }
    return result;
  }

  std::map<int, Node> nodes;
  uint64_t num_evicted = 0;

 private:
  int add(int parent, const Tokens& tokens) {
    nodes[next_] = {parent, tokens, ++clock_, 0};
    return next_++;
  }
  int child_of(int parent, const Tokens& tokens) const {
    for (const auto& [id, node] : nodes) {
      if (node.parent == parent && node.tokens == tokens) return id;
    }
    return -1;
  }
  bool has_children(int id) const {
    return std::ranges::any_of(nodes, [&](const auto& n) { return n.second.parent == id; });
  }
  int common_with(int id, const Tokens& tokens) const {
    const Tokens& mine = nodes.at(id).tokens;
    size_t n = 0;
    while (n < std::min(mine.size(), tokens.size()) && mine[n] == tokens[n]) ++n;
    return static_cast<int>(n);
  }
  std::vector<int> last_used_children(int parent) const {
    std::vector<int> children;
    for (const auto& [id, node] : nodes) {
      if (node.parent == parent) children.push_back(id);
    }
    std::ranges::sort(children, [&](int a, int b) { return nodes.at(a).used > nodes.at(b).used; });
    if (children.size() > RadixCache::kPartialCandidates) children.resize(RadixCache::kPartialCandidates);
    return children;
  }
  void evict(int id) {
    num_evicted += nodes[id].parent >= 0;
    nodes.erase(id);
  }

  const int size_, num_blocks_;
  int next_ = 0;
  uint64_t clock_ = 0;
};

// Both at once, compared after every call. A node of one is known by the node of the other.
class Twins {
 public:
  Twins(int block_size, int num_blocks, uint64_t seed)
      : real_(geometry_of(block_size, {{num_blocks, 0}})), plain_(block_size, num_blocks), random_(seed) {}

  void run(int num_requests) {
    for (int i = 0; i < num_requests && !::testing::Test::HasFatalFailure(); ++i) {
      if (open_.size() < 3 && pick(2) == 0)
        begin();
      else if (!open_.empty())
        advance(pick(open_.size()));
      compare();
    }
  }
  uint64_t num_evicted() const { return plain_.num_evicted; }
  int num_partial = 0, num_whole = 0;

 private:
  struct Open {
    Tokens tokens;
    int num_cached;  // whole blocks
    NodeId node, root;
    int plain_node, plain_root;
  };
  uint64_t pick(uint64_t n) { return random_() % n; }

  void begin() {
    Open open;
    const int salt = static_cast<int>(pick(2));
    std::string text(static_cast<size_t>(salt), 's');
    // Few different tokens, so that requests share beginnings of every length.
    const auto length = 1 + pick(14);
    for (uint64_t i = 0; i < length; ++i)
      open.tokens.push_back(static_cast<TokenId>(pick(i % 4 == 0 ? 12 : 2)));
    open.root = real_.cache.root(text);
    open.plain_root = plain_.root(Tokens(static_cast<size_t>(salt), 's'));
    real_.cache.pin(open.root);
    ++plain_.nodes[open.plain_root].pins;
    const RadixCache::Match match = real_.cache.match(open.root, open.tokens);
    const auto [whole, partial] = plain_.match(open.plain_root, open.tokens, &open.plain_node);
    ASSERT_EQ(match.num_blocks, whole);
    ASSERT_EQ(match.partial_tokens, partial);
    num_whole += whole;
    num_partial += partial;
    open.num_cached = whole;
    open.node = match.node;
    real_.cache.pin(open.node);
    ++plain_.nodes[open.plain_node].pins;
    open_.push_back(open);
  }

  void advance(size_t which) {
    Open& open = open_[which];
    const int size = real_.geometry.block_size;
    const int left = static_cast<int>(open.tokens.size()) - open.num_cached * size;
    if (left > 0) {
      const auto begin = open.tokens.begin() + open.num_cached * size;
      const Tokens tokens(begin, begin + std::min(left, size));
      std::array<BlockRef, kMaxKvGroups> blocks;
      blocks[0] = real_.allocate(0);
      plain_.make_room();
      ASSERT_TRUE(blocks[0]);
      const NodeId next = real_.cache.insert(open.node, tokens, blocks);
      const int plain_next = plain_.insert(open.plain_node, tokens);
      ASSERT_EQ(next == kNone, plain_next < 0);
      if (left >= size) {
        real_.cache.pin(next);
        ++plain_.nodes[plain_next].pins;
        unpin(open.node, open.plain_node);
        open.node = next;
        open.plain_node = plain_next;
        ++open.num_cached;
        return;
      }
    }
    unpin(open.node, open.plain_node);
    unpin(open.root, open.plain_root);
    open_.erase(open_.begin() + static_cast<ptrdiff_t>(which));
  }

  void unpin(NodeId node, int plain) {
    real_.cache.unpin(node);
    --plain_.nodes[plain].pins;
    plain_.touch(plain);
  }

  void compare() {
    real_.cache.check_invariants();
    ASSERT_EQ(real_.cache.num_evicted_blocks(), plain_.num_evicted);
    int held = 0;
    real_.cache.for_each_block([&](BlockId, int) { ++held; });
    ASSERT_EQ(held, plain_.num_held());
    ASSERT_EQ(real_.pools[0]->num_free(), real_.geometry.groups[0].num_blocks - held);
  }

  Cached real_;
  PlainCache plain_;
  std::mt19937_64 random_;
  std::vector<Open> open_;
};

TEST(RadixCache, FindsAndForgetsWhatAPlainModelDoes) {
  uint64_t evicted = 0;
  int whole = 0, partial = 0;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(seed);
    Twins twins(seed % 2 == 0 ? 4 : 3, 16 + static_cast<int>(seed % 5) * 8, seed);
    twins.run(1000);
    evicted += twins.num_evicted();
    whole += twins.num_whole;
    partial += twins.num_partial;
    if (::testing::Test::HasFatalFailure()) return;
  }
  EXPECT_GT(evicted, 5'000u);  // the lives were full enough to show something
  EXPECT_GT(whole, 1'000);
  EXPECT_GT(partial, 1'000);
}

// --- by example ---

TEST(RadixCache, WhatWasUsedLeastRecentlyGoesFirst) {
  Cached c(geometry_of(4, {{6, 0}}));
  c.serve(numbers(8, 100));
  c.serve(numbers(8, 200));
  c.serve(numbers(8, 300));
  EXPECT_EQ(c.match(numbers(8, 100)).num_blocks, 2);  // used again: now the second is the oldest
  c.serve(numbers(8, 400));
  EXPECT_EQ(c.cache.num_evicted_blocks(), 2u);
  EXPECT_EQ(c.match(numbers(8, 200)).num_blocks, 0);
  EXPECT_EQ(c.match(numbers(8, 100)).num_blocks, 2);
  EXPECT_EQ(c.match(numbers(8, 300)).num_blocks, 2);
}

TEST(RadixCache, LettingGoOfANodeIsAUse) {
  Cached c(geometry_of(4, {{4, 0}}));
  c.serve(numbers(8, 100));
  const NodeId standing = c.match(numbers(8, 100)).node;
  c.cache.pin(standing);
  c.serve(numbers(8, 200));
  c.cache.unpin(standing);
  c.serve(numbers(8, 300));
  EXPECT_EQ(c.match(numbers(8, 100)).num_blocks, 2);
  EXPECT_EQ(c.match(numbers(8, 200)).num_blocks, 0);
}

TEST(RadixCache, OfSeveralChildrenTheOneThatSharesMostIsTaken) {
  Cached c(geometry_of(8, {{32, 0}}));
  const Tokens shared = numbers(8, 0);
  for (const int common : {2, 6, 4})
    c.serve(joined(shared, joined(numbers(common, 50), numbers(5, 100 * common))));
  const RadixCache::Match match = c.match(joined(shared, numbers(7, 50)));
  EXPECT_EQ(match.num_blocks, 1);
  EXPECT_EQ(match.partial_tokens, 6);
}

// The windowed block of the child that shares most is gone; that of another is there.
TEST(RadixCache, TheBestUsableChildIsTakenWhenTheBestOnesBlockIsGone) {
  Cached c(geometry_of(8, {{32, 0}, {3, 8}}));
  const Tokens shared = numbers(8, 0);
  c.serve(joined(shared, joined(numbers(6, 50), numbers(2, 200))));
  c.serve(joined(shared, joined(numbers(3, 50), numbers(5, 300))));
  // The windowed group holds three blocks: the shared one and two children. The first child's is the oldest.
  const NodeId first = c.match(joined(shared, joined(numbers(6, 50), numbers(2, 200)))).node;
  const NodeId second = c.match(joined(shared, joined(numbers(3, 50), numbers(5, 300)))).node;
  c.match(shared);
  ASSERT_TRUE(c.cache.evict_one(1));
  ASSERT_TRUE(c.cache.block(second, 1) && !c.cache.block(first, 1));
  EXPECT_EQ(c.cache.num_evicted_blocks(), 1u);
  for (const NodeId tried_first : {second, first}) {
    if (tried_first == first) c.match(joined(shared, joined(numbers(6, 50), numbers(2, 200))));
    const RadixCache::Match match = c.match(joined(shared, numbers(7, 50)));
    EXPECT_EQ(match.num_blocks, 1);
    EXPECT_EQ(match.partial, second);
    EXPECT_EQ(match.partial_tokens, 3);
  }
}

TEST(RadixCache, ATailOfAnotherLengthGivesWayToTheBlockThatContinuesIt) {
  Cached c(geometry_of(8, {{32, 0}}));
  c.serve(numbers(11, 0));
  c.serve(numbers(13, 0));
  c.serve(numbers(16, 0));
  EXPECT_EQ(c.pools[0]->num_cached_only(), 2);
  EXPECT_EQ(c.serve(numbers(12, 0)), 12);
  EXPECT_EQ(c.pools[0]->num_cached_only(), 2) << "a tail that is covered adds nothing";
}

TEST(RadixCache, SaltsHaveRootsOfTheirOwn) {
  Cached c(geometry_of(4, {{16, 0}}));
  c.serve(numbers(8, 0), "mine");
  EXPECT_EQ(c.match(numbers(8, 0), "yours").num_blocks, 0);
  EXPECT_EQ(c.match(numbers(8, 0)).num_blocks, 0);
  EXPECT_EQ(c.match(numbers(8, 0), "mine").num_blocks, 2);
}

// So many that some share a bucket whatever the seed of the hash is.
TEST(RadixCache, RootsOfManySaltsAndClassesAreNeverTakenForEachOther) {
  constexpr int kMany = 256;
  Cached plain(geometry_of(4, {{8, 0}}));
  RadixCache cache(plain.geometry, plain.borrow(), 2 * kMany);
  std::vector<NodeId> roots;
  const auto ask_all = [&] {
    std::vector<NodeId> asked;
    for (int i = 0; i < 2 * kMany; ++i) {
      std::string salt = i < kMany ? "same" : std::to_string(i);
      asked.push_back(cache.root(salt, i < kMany ? i : 0));
    }
    return asked;
  };
  roots = ask_all();
  EXPECT_EQ(ask_all(), roots);
  EXPECT_EQ(std::set<NodeId>(roots.begin(), roots.end()).size(), roots.size());
}

TEST(RadixCache, APassedWindowGoesBeforeWhatAMatchMayEndWith) {
  Cached c(geometry_of(4, {{64, 0}, {6, 8}}));
  const Tokens a = numbers(12, 0), b = numbers(40, 500);
  c.serve(a);
  c.match(a);  // ends there: its last two blocks are wanted
  c.serve(b);  // more blocks than there are: it takes its own again and again
  EXPECT_EQ(c.match(a).num_blocks, 3);
}

TEST(RadixCache, TailsAndTheBlockAMatchEndedInsideOfAreWantedToo) {
  for (const int length : {10, 12}) {  // the last block is a tail, or whole
    Cached c(geometry_of(4, {{64, 0}, {6, 8}}));
    c.serve(numbers(length, 0));
    if (length == 12) c.match(numbers(10, 0));
    ASSERT_TRUE(c.cache.evict_one(1));
    EXPECT_TRUE(c.pools[1]->cached(2)) << length;  // the third block that was handed out
  }
}

// --- what it costs ---

// Nodes looked at per request, when `cached` chats are cached whose shared beginning does not end with a
// block, and each further one evicts when `full`.
double cost_per_request(int cached, bool full, int shared_tokens) {
  constexpr int kSize = 16, kOwn = 60, kMeasured = 200;
  const int blocks_each = (shared_tokens % kSize + kOwn + kSize - 1) / kSize;
  const int held = shared_tokens / kSize + cached * blocks_each;
  Cached c(geometry_of(kSize, {{full ? held : held + kMeasured * blocks_each, 0}}));
  const Tokens shared = numbers(shared_tokens, 0);
  uint64_t before = 0, evicted_before = 0;
  for (int i = 0; i < cached + kMeasured; ++i) {
    if (i == cached) {
      before = c.cache.num_looked_at();
      evicted_before = c.cache.num_evicted_blocks();
    }
    c.serve(joined(shared, numbers(kOwn, 1000 + i * kOwn)));
  }
  EXPECT_EQ(c.cache.num_evicted_blocks() - evicted_before > kMeasured, full);
  return static_cast<double>(c.cache.num_looked_at() - before) / kMeasured;
}

TEST(RadixCache, TenThousandCachedChatsCostWhatTenDo) {
  for (const int shared : {40, 48, 5}) {
    for (const bool full : {false, true}) {
      SCOPED_TRACE(::testing::Message() << shared << " shared tokens, " << (full ? "evicting" : "ample"));
      const double few = cost_per_request(10, full, shared), many = cost_per_request(10'000, full, shared);
      EXPECT_LT(many, 1.6 * few);  // the seed of the hash is worth 1.25
      EXPECT_LT(many, 50);
      RecordProperty("nodes_per_request", std::to_string(many));
    }
  }
}

}  // namespace
}  // namespace serval
