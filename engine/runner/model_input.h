// Batch and slot tables -> the flat arrays a forward pass reads. All arrays are planned for the largest step.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/batch.h"
#include "engine/kv_geometry.h"
#include "engine/runner/slot_table.h"
#include "kernels/backend.h"

namespace serval {

class ModelInput {
 public:
  ModelInput(int max_rows, int max_seqs, int table_stride, const BlockGeometry& geometry);

  static size_t planned_bytes(int max_rows, int max_seqs, int table_stride, const BlockGeometry& geometry);

  // `slots` is already updated from the batch. The view is good until the next call.
  // padded_rows(n): how many rows a step of n rows shall have; those added belong to no sequence.
  template <class PaddedRows>
  const ForwardInput& build(const Batch& batch, const SlotTable& slots, const PaddedRows& padded_rows) {
    const int rows = fill(batch, slots);
    return view(batch, rows, padded_rows(rows));
  }

 private:
  int fill(const Batch& batch, const SlotTable& slots);
  const ForwardInput& view(const Batch& batch, int rows, int padded_rows);

  struct Group {
    std::vector<int32_t> slots;        // [max_rows]
    std::vector<int32_t> block_table;  // [max_seqs, step_stride_]
  };

  BlockGeometry geometry_;
  int step_stride_ = 1;                         // of this step's block tables, at most what was planned for
  std::vector<int32_t> token_ids_, positions_;  // [max_rows]
  std::vector<int32_t> row_start_, first_pos_;  // [max_seqs + 1], [max_seqs]
  Group groups_[kMaxKvGroups];
  ForwardInput input_;
};

}  // namespace serval
