// The KV blocks of all groups and the prefix cache over them, and what a running sequence holds of them.
// Every rule that differs between a full and a windowed group is in here or in capacity.h. Knows token
// histories and positions, but no requests, queue or time. Single-threaded; allocates only when constructed.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/batch.h"
#include "engine/config.h"
#include "engine/scheduler/block_pool.h"
#include "engine/scheduler/radix_cache.h"

namespace serval {

// What one running sequence holds. Entry i of a table covers the positions [i * block_size, (i + 1) *
// block_size); in a windowed group the entries before the window are empty.
struct SequenceKv {
  std::vector<BlockRef> tables[kMaxKvGroups];
  // Where the sequence stands in the cache's tree: behind the node of its first num_inserted blocks, which is
  // pinned. kNoNode: it has no place there (no cache, or no node was to be had), and inserts nothing.
  NodeId node = kNoNode;
  int num_inserted = 0;
  // shadows[i]: the full-group block of node i, where the sequence computed a block of the same tokens
  // itself. Held so that the cache's rule 1 (radix_cache.h) is kept; empty where the table already holds the
  // node's block.
  std::vector<BlockRef> shadows;
  // The first copy_tokens positions of the next block to come are a copy of these, which are held until the
  // step is over.
  GroupBlocks copy_from;
  int copy_tokens = 0;

  int num_blocks(int group) const { return static_cast<int>(tables[group].size()); }
  BlockId block(int group, int index) const { return tables[group][index].id(); }
};

class KvMemory {
 public:
  KvMemory(const BlockGeometry& geometry, const SchedulerConfig& config);

  // Room for the tables of one sequence of the largest length.
  SequenceKv make_sequence_kv() const;

  // The cache's root of a salt, pinned until release_root; kNoNode without a cache.
  NodeId acquire_root(std::string_view salt);
  void release_root(NodeId root);

  // Two ways to start an empty `kv`; each returns how many of the first `limit` tokens are computed by that.
  // When this is not a multiple of the block size, the partial block is to be copied, and its source is held
  // until end_copy(). What the cache has of tokens[0..limit).
  int start_from_cache(SequenceKv& kv, NodeId root, std::span<const TokenId> tokens, int limit);
  // What a sequence with the same first `limit` tokens has; -1, and nothing changed, when part of that window
  // is gone.
  int start_from(SequenceKv& kv, const SequenceKv& other, int limit);

  // Blocks of a group that are free, or can be had from the cache.
  int num_available(int group) const { return pools_[group].num_available(); }
  // With the blocks that are available, rows can be computed up to this position.
  int64_t reachable(const SequenceKv& kv) const;
  // Blocks to be had before rows up to `end` can be computed, and before that is done in chunks of at most
  // `chunk` rows, letting go of what leaves a window in between.
  int num_missing(const SequenceKv& kv, int group, int end) const;
  int num_missing(const SequenceKv& kv, int group, int end, int chunk) const;
  // Blocks that become available if the sequence lets go.
  int gain(const SequenceKv& kv, int group) const;

  // Takes blocks, evicting where none is free, so that rows up to `end` can be computed; end <= reachable().
  void extend(SequenceKv& kv, int end);
  // The positions before `num_computed` are computed: full blocks go to the cache, blocks before the window
  // are let go.
  void advance(SequenceKv& kv, std::span<const TokenId> tokens, int num_computed);
  void end_copy(SequenceKv& kv);  // the step is over: the source of the copy may go
  // Lets go of everything; what is computed stays in the cache, a partial tail too, unless the KV must not be
  // trusted.
  void release(SequenceKv& kv, std::span<const TokenId> tokens, int num_computed, bool trusted);

  const BlockGeometry& geometry() const { return geometry_; }
  const BlockPool& pool(int group) const { return pools_[group]; }
  uint64_t num_evicted() const { return cache_ ? cache_->num_evicted() : 0; }

  // Aborts unless exactly the references of these sequences and of the cache exist, and the pins of these
  // sequences and roots.
  void check_invariants(std::span<const SequenceKv> sequences, std::span<const NodeId> roots) const;
  // Aborts unless a running sequence has the blocks its next row sees, and stands where its tokens say.
  void check_sequence(const SequenceKv& kv, std::span<const TokenId> tokens, int num_computed) const;

 private:
  BlockRef allocate(int group);
  void insert(SequenceKv& kv, std::span<const TokenId> tokens, int num_computed);
  void move_to(SequenceKv& kv, NodeId node);

  const BlockGeometry geometry_;
  const int max_blocks_;  // of a sequence, in each group
  std::vector<BlockPool> pools_;
  std::optional<RadixCache> cache_;
};

}  // namespace serval
