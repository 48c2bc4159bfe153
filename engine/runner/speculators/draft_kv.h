// The keys and values of a model or head that guesses: they stand under the block ids of the target's, and behind all of
// those are blocks of each slot's own for what is guessed (draft_plan.h).
#pragma once

#include <vector>

#include "engine/runner/draft_plan.h"
#include "engine/runner/kv_cache.h"
#include "engine/runner/slot_table.h"

namespace serval {

class DraftKv {
 public:
  DraftKv(const ModelSpec& spec, const DraftPlan& plan, Backend& backend, int max_seqs)
      : plan_(plan), cache_(spec, plan.geometry, plan.kv_dtype, backend, max_seqs) {
    copies_.reserve(size_t{kMaxKvGroups} * max_seqs);
  }
  static size_t planned_table_bytes(int max_seqs) { return size_t{kMaxKvGroups} * max_seqs * sizeof(GroupBlockCopy); }

  std::span<const KvLayer> layers() const { return cache_.layers(); }
  // Of the target's groups.
  void copy(std::span<const GroupBlockCopy> copies) {
    copies_.clear();
    for (const GroupBlockCopy& copy : copies) {
      for (int d = 0; d < plan_.geometry.num_groups; ++d)
        if (plan_.target_groups[d] == copy.group) copies_.push_back({d, copy.copy});
    }
    cache_.copy(copies_);
  }
  // The input, which has the target's groups, as this model's layers read it.
  ForwardInput input_of(const ForwardInput& of_target) const {
    ForwardInput input = of_target;
    for (int d = 0; d < plan_.geometry.num_groups; ++d) input.groups[d] = of_target.groups[plan_.target_groups[d]];
    return input;
  }

 private:
  const DraftPlan plan_;
  KvCache cache_;
  std::vector<GroupBlockCopy> copies_;
};

// Room for guesses at positions before `end`, of a plan's own blocks.
inline void lend_own_blocks(const DraftPlan& plan, int num_groups, SlotId slot, int end, SlotTable& slots) {
  for (int g = 0; g < num_groups; ++g) slots.lend(slot, g, plan.first_own_block[g] + slot * plan.own_blocks[g], end);
}

}  // namespace serval
