// The KV memory as arithmetic: which positions a block covers, how many blocks so many positions take, which
// of them a later row still reads, and where a cached prefix may be taken up. The only copy of it: scheduler,
// memory plan, slot table, model input and validator ask here. Knows no block and nobody who holds one.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/length_classes.h"
#include "kernels/values.h"

namespace serval {

// A group of layers that keep the same positions.
struct KvGroupGeometry {
  int32_t num_blocks = 0;
  // 0: every position stays. w: a row at position p reads positions > p - w only, and blocks wholly before
  // them are forgotten.
  int32_t window = 0;
  // With a window: the first so many positions stay as well.
  int32_t sinks = 0;
  // s > 0, a multiple of the block size: the layers keep no keys and values but a recurrent state. A block holds
  // the state behind the last computed of s positions: it is written in place while they are computed, and is
  // a snapshot, never written again, from then on.
  int32_t state_span = 0;
};

// What holds of the blocks of one group. A table index is a position / span().
class KvRule {
 public:
  KvRule(const KvGroupGeometry& group, int32_t block_size)
      : is_state_(group.state_span > 0),
        span_(is_state_ ? group.state_span : block_size),
        window_(is_state_ ? 2 : group.window),
        num_kept_(blocks_for(group.sinks)) {}

  bool keeps_state() const { return is_state_; }
  // Positions that a block covers.
  int32_t span() const { return span_; }
  int32_t blocks_for(int64_t positions) const {
    return static_cast<int32_t>((positions + span_ - 1) / span_);
  }
  // Table indexes below this are read by all rows.
  int32_t num_kept() const { return num_kept_; }
  // First table index, but for those, that a row at position `next` still reads.
  int32_t first_needed(int32_t next) const {
    return window_ == 0 ? 0 : std::max(0, next - window_ + 1) / span_;
  }
  // Whether blocks are let go of while the sequence goes on.
  bool forgets() const { return window_ > 0; }
  // Whether a sequence can begin with what is cached of its first `end` positions, when all blocks of the
  // group that end behind position `gap_end` are there, and those kept are. (A state has none that ends between two
  // snapshots.)
  bool may_match(int32_t end, int32_t gap_end) const {
    return gap_end <= (window_ == 0 ? 0 : std::max(0, end - window_ + 1));
  }
  // Whether the first positions of a block can be had without the others.
  bool may_copy_part() const { return !is_state_; }
  // Whether a sequence whose rows stand at `row` still has what a row at `position` reads, in blocks it holds.
  bool may_fork(int32_t position, int32_t row) const {
    return !is_state_ || row == position || position % span_ == 0;
  }
  // In a group that forgets: no step of so many rows of one sequence reads and writes more blocks.
  int32_t blocks_of_step(int32_t rows) const {
    return is_state_ ? (rows - 1) / span_ + 2 : num_kept_ + blocks_for(int64_t{window_} + rows) + 1;
  }
  // The most blocks that one row needs in a sequence of so many positions: it touches most when what it reads
  // begins as late in a block as can be.
  int32_t blocks_of_row(int32_t positions) const {
    const int32_t read = window_ == 0 ? positions : std::min(window_, positions);
    if (num_kept_ == 0) return blocks_for(std::min(span_ - 1, positions - read) + read);
    int32_t most = 0;
    for (int32_t row = std::max(0, positions - span_); row < positions; ++row)
      most = std::max(most, row / span_ + 1 - std::max(0, first_needed(row) - num_kept_));
    return most;
  }

 private:
  bool is_state_;
  int32_t span_;
  int32_t window_;  // a row reads the state behind the one before it, and writes its own
  int32_t num_kept_;
};

struct BlockGeometry {
  int32_t block_size = 16;
  int32_t num_groups = 1;
  KvGroupGeometry groups[kMaxKvGroups];
  // What is kept of a position depends on its sequence's class as well.
  LengthClasses lengths;

  KvRule rule(int group) const { return {groups[group], block_size}; }

  // Whether what is cached can be taken up within a block.
  bool may_copy_part() const {
    for (int g = 0; g < num_groups; ++g) {
      if (!rule(g).may_copy_part()) return false;
    }
    return true;
  }
  // Entries of a sequence's block table, in the group that has most.
  int32_t table_entries(int32_t positions) const {
    int32_t most = 0;
    for (int g = 0; g < num_groups; ++g) most = std::max(most, rule(g).blocks_for(positions));
    return most;
  }
  // Whether a sequence of so many positions can be computed to its end when it has all memory. Exact: with
  // one block less it would wait for ever.
  bool fits(int32_t positions) const {
    for (int g = 0; g < num_groups; ++g) {
      if (rule(g).blocks_of_row(positions) > groups[g].num_blocks) return false;
    }
    return true;
  }
};

}  // namespace serval
