// All KV memory: which blocks exist, which prefixes they hold, and what each sequence has of both. A sequence
// starts from the cache or from the one it forks from, grows, caches what it has computed, forgets what no
// row reads any more, and lets go. Which positions a block covers and how long it is needed is the group's
// rule (engine/kv_geometry.h). Knows nothing of who runs, why, or for how long: that memory is lacking is
// said, and whoever asked decides.
//
// Pure; single-threaded, but for prepare; allocates only in its constructor and in prepare.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/batch.h"
#include "engine/kv_geometry.h"
#include "engine/scheduler/block_pool.h"
#include "engine/scheduler/radix_cache.h"
#include "engine/stats.h"

namespace serval {

// What one sequence has of the KV memory. Only KvManager changes it.
struct SequenceKv {
  // Per group: block of table index i at blocks[i]; empty where it is forgotten.
  std::array<std::vector<BlockRef>, kMaxKvGroups> blocks;
  std::array<int32_t, kMaxKvGroups> first_block{};  // first index that is held, but for those always kept
  std::array<int32_t, kMaxKvGroups> num_told{};     // indexes below this are in the runner's table
  // Where it stands in the prefix cache (pinned); kNone: not in it.
  RadixCache::NodeId node = RadixCache::kNone;
  int32_t num_cached_blocks = 0;  // whole blocks of its path that are in the cache
  int32_t num_shared = 0;         // first blocks of its table that it took from the cache or its parent
  RadixCache::Place reached;      // where its last look into the cache ended

  bool holds_blocks() const;
};

class KvManager {
 public:
  // `max_roots`: salts whose prefixes may be in use at once.
  KvManager(const BlockGeometry& geometry, bool enable_prefix_cache, int max_roots);
  static size_t planned_bytes(const BlockGeometry& geometry, int max_roots);

  const BlockGeometry& geometry() const { return geometry_; }

  // Makes room for the tables of so many positions. Any thread; allocates.
  void prepare(SequenceKv& kv, int32_t max_positions) const;

  // What a sequence begins with: the KV of its first num_computed positions; `num_part` more, or a state behind
  // them, when it has copied what others hold of the blocks at hand.
  struct Start {
    int32_t num_computed = 0;
    int32_t num_part = 0;
    std::array<BlockRef, kMaxKvGroups> part;  // held until they are copied
  };
  // Takes what the cache has of `tokens`. `root` is that of the request's salt and class of lengths: made, and pinned
  // until release_root, at its first use.
  Start start_from_cache(SequenceKv& kv, RadixCache::NodeId& root, std::string& salt, int32_t length_class,
                         std::span<const TokenId> tokens);
  // Whether `parent`, whose rows stand at `row` when a step begins, still has what a row at `position` reads.
  bool can_fork(const SequenceKv& parent, int32_t row, int32_t position) const;
  // Takes the first `position` positions of the parent.
  Start start_from_parent(SequenceKv& kv, const SequenceKv& parent, RadixCache::NodeId root,
                          int32_t position);
  // Copies into blocks of the sequence's own what is to be copied. False, and nothing changed, when there are
  // none to be had; a sequence that starts from the cache can then compute those positions.
  bool copy_part(SequenceKv& kv, Start& start, std::vector<GroupBlockCopy>& copies);
  // Blocks that the cache has gained where the last look into it ended; -1: it has to be looked into again.
  int32_t gained(SequenceKv& kv, std::span<const TokenId> tokens) {
    return cache_.follow(kv.reached, tokens);
  }

  // Holds blocks for positions up to `end` in every group, or for as many as can be had. Returns that end.
  int32_t grow(SequenceKv& kv, int32_t end);
  // Lets go of blocks behind the computed positions, which were for guesses that did not come true.
  void give_back(SequenceKv& kv, int32_t num_computed);
  // What the runner is told of the tables: where a newcomer's begin, then the blocks it does not know yet.
  void tell(SequenceKv& kv, Admission& admission) const;
  void tell(SequenceKv& kv, SeqStep& step, Batch& batch) const;
  // The KV of the first `num_computed` of the tokens is there: whole blocks enter the cache, and what no
  // later row reads is forgotten. The first num_prompt tokens may come again.
  void computed(SequenceKv& kv, std::span<const TokenId> tokens, int32_t num_computed, int32_t num_prompt);
  // The same for a sequence that is about to let go: the rest of its last block enters the cache, too.
  void computed_last(SequenceKv& kv, std::span<const TokenId> tokens, int32_t num_computed,
                     int32_t num_prompt);
  void release(SequenceKv& kv);
  void release_root(RadixCache::NodeId root);

  // Blocks of the group that are free or can be made so.
  int32_t num_available(int group) const {
    return pools_[group]->num_free() + pools_[group]->num_cached_only();
  }
  void tell_stats(SchedulerStats& stats) const;
  // Every block is accounted for by the cache and those who hold KV, who must be all; aborts with values
  // otherwise.
  void check_invariants(std::span<const SequenceKv* const> holders) const;
  // The tables of a sequence that runs: computed as far as said, rows up to next_row planned.
  void check_sequence(const SequenceKv& kv, RadixCache::NodeId root, std::span<const TokenId> tokens,
                      int32_t num_computed, int32_t next_row) const;

 private:
  friend struct SchedulerPeer;  // a test takes a block to show that check_invariants misses it
  using Blocks = std::array<BlockRef, kMaxKvGroups>;

  BlockRef allocate(int group);
  void pin_prefix(SequenceKv& kv, RadixCache::NodeId node, int32_t num_blocks);
  Blocks blocks_at(const SequenceKv& kv, int32_t index) const;
  void cache_whole(SequenceKv& kv, std::span<const TokenId> tokens, int32_t num_computed, int32_t num_prompt);
  void forget(SequenceKv& kv, int32_t num_computed);
  // The group's block that belongs to the sequence's node of that index; nullptr: it has none, as between the
  // snapshots of a state.
  const BlockRef* block_of_node(const SequenceKv& kv, int group, int32_t index) const;

  const BlockGeometry geometry_;
  const bool enable_prefix_cache_;
  std::vector<std::unique_ptr<BlockPool>> pools_;  // per group; outlive the cache and the sequences
  RadixCache cache_;
};

}  // namespace serval
