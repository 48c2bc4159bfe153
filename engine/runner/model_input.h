// Batch and slot tables -> the flat arrays a forward pass reads. All arrays are planned for the largest step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/batch.h"
#include "engine/kv_geometry.h"
#include "engine/long_attention.h"
#include "engine/runner/slot_table.h"
#include "kernels/backend.h"

namespace serval {

class ModelInput {
 public:
  // max_branches: rows of a step whose ancestors do not stand right before them, guesses of a tree.
  ModelInput(int max_rows, int max_seqs, int max_branches, int table_stride, const BlockGeometry& geometry,
             const LongAttention& long_attention);

  static size_t planned_bytes(int max_rows, int max_seqs, int max_branches, int table_stride,
                              const BlockGeometry& geometry, const LongAttention& long_attention);

  // `slots` is already updated from the batch. The view is good until the next call.
  // padded_rows(n): how many rows a step of n rows shall have; those added belong to no sequence. token_offset: a row has the
  // token that stands so many positions behind its own.
  template <class PaddedRows>
  const ForwardInput& build(const Batch& batch, const SlotTable& slots, const PaddedRows& padded_rows, int token_offset = 0) {
    const int rows = fill(batch, slots, token_offset);
    return view(rows, padded_rows(rows));
  }

  // A guess that its slot does not know: it stands at `position`, its keys and values go to the place of position tree_start
  // + place, and it reads what stands before tree_start and the places in `mask`, its own among them (0: all before it). Of a
  // block that all see each other, without masks, last_read is its end: what it reads goes on to there.
  struct Guess {
    const Slot* slot = nullptr;
    TokenId token = 0;
    int32_t position = 0, tree_start = 0, place = 0;
    uint64_t mask = 0;
    int32_t last_read = 0;
  };
  const ForwardInput& build(std::span<const Guess> guesses);

  int num_groups() const { return geometry_.num_groups; }

 private:
  int fill(const Batch& batch, const SlotTable& slots, int token_offset);
  void fill_branches(const Batch& batch, const SeqStep& step, const Slot& slot, int row, int num_chained);
  void add_sequence(const Slot& slot, int row, int first_pos, uint64_t mask, int tree_start);
  const ForwardInput& view(int rows, int padded_rows);

  struct Group {
    std::vector<int32_t> slots;        // [max_rows]
    std::vector<int32_t> block_table;  // [sequences, step_stride_]
  };

  void set_position(int row, const Slot& slot, int position);

  BlockGeometry geometry_;
  LongAttention long_attention_;
  int step_stride_ = 1;                         // of this step's block tables, at most what was planned for
  std::vector<int32_t> token_ids_, positions_, token_types_;  // [max_rows]
  std::vector<int32_t> far_queries_, far_keys_;  // [max_rows] where attention is long, else empty
  // Sequences as attention sees them: each of the step, and each branch of a tree of guesses.
  int num_seqs_ = 0;
  bool has_branches_ = false;
  std::vector<int32_t> row_start_, first_pos_, tree_start_;  // [sequences + 1], [sequences]
  std::vector<uint64_t> tree_masks_;                         // [sequences]
  Group groups_[kMaxKvGroups];
  ForwardInput input_;
};

}  // namespace serval
