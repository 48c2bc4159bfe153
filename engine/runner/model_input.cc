#include "engine/runner/model_input.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace serval {

ModelInput::ModelInput(int max_rows, int max_seqs, int table_stride, const BlockGeometry& geometry)
    : geometry_(geometry),
      token_ids_(max_rows),
      positions_(max_rows),
      row_start_(max_seqs + 1),
      first_pos_(max_seqs) {
  for (int g = 0; g < geometry.num_groups; ++g) {
    groups_[g].slots.resize(max_rows);
    groups_[g].block_table.resize(static_cast<size_t>(max_seqs) * table_stride);
  }
}

size_t ModelInput::planned_bytes(int max_rows, int max_seqs, int table_stride,
                                 const BlockGeometry& geometry) {
  const size_t per_group = max_rows + static_cast<size_t>(max_seqs) * table_stride;
  return sizeof(int32_t) * (2 * max_rows + 2 * max_seqs + 1 + geometry.num_groups * per_group);
}

// The rows of the batch; returns how many.
int ModelInput::fill(const Batch& batch, const SlotTable& slots) {
  SERVAL_CHECK(batch.seqs.size() <= first_pos_.size(), batch.seqs.size(), first_pos_.size());
  // As wide as the longest table of this step: a device copies no more than is used.
  step_stride_ = 1;
  for (const SeqStep& step : batch.seqs)
    for (int g = 0; g < geometry_.num_groups; ++g)
      step_stride_ = std::max(step_stride_, slots.of(step).num_blocks[g]);
  int row = 0;
  for (size_t i = 0; i < batch.seqs.size(); ++i) {
    const SeqStep& step = batch.seqs[i];
    const Slot& slot = slots.of(step);
    SERVAL_CHECK(row + step.num_tokens <= static_cast<int>(token_ids_.size()), row, step.num_tokens,
                 token_ids_.size());
    row_start_[i] = row;
    first_pos_[i] = step.first_pos;
    for (int j = 0; j < step.num_tokens; ++j) {
      const TokenId token = slot.tokens[step.first_pos + j];
      token_ids_[row + j] = token == kTokenOnDevice ? -1 - step.slot : token;
    }
    const int end = step.first_pos + step.num_tokens;
    for (int g = 0; g < geometry_.num_groups; ++g) {
      Group& group = groups_[g];
      const int block_size = geometry_.rule(g).span();
      SERVAL_CHECK(slot.num_blocks[g] * block_size >= end, slot.num_blocks[g], block_size, end, g);
      for (int p = step.first_pos; p < end; ++p) {
        const BlockId block = slot.blocks[g][p / block_size];
        SERVAL_CHECK(block >= 0, block, p, g);
        group.slots[row + p - step.first_pos] = block * block_size + p % block_size;
      }
      std::copy_n(slot.blocks[g], slot.num_blocks[g],
                  group.block_table.begin() + static_cast<int64_t>(i) * step_stride_);
    }
    for (int p = step.first_pos; p < end; ++p) positions_[row++] = p;
  }
  row_start_[batch.seqs.size()] = row;
  return row;
}

const ForwardInput& ModelInput::view(const Batch& batch, int rows, int padded_rows) {
  SERVAL_CHECK(padded_rows >= rows && padded_rows <= static_cast<int>(token_ids_.size()), rows, padded_rows,
               token_ids_.size());
  std::fill(token_ids_.begin() + rows, token_ids_.begin() + padded_rows, 0);
  std::fill(positions_.begin() + rows, positions_.begin() + padded_rows, 0);
  input_.token_ids = {token_ids_.data(), static_cast<size_t>(padded_rows)};
  input_.positions = {positions_.data(), static_cast<size_t>(padded_rows)};
  for (int g = 0; g < geometry_.num_groups; ++g) {
    std::fill(groups_[g].slots.begin() + rows, groups_[g].slots.begin() + padded_rows, -1);
    input_.groups[g].slots = groups_[g].slots.data();
    input_.groups[g].attention = {.num_seqs = static_cast<int>(batch.seqs.size()),
                                  .num_rows = padded_rows,
                                  .row_start = row_start_.data(),
                                  .first_pos = first_pos_.data(),
                                  .block_table = groups_[g].block_table.data(),
                                  .table_stride = step_stride_};
  }
  return input_;
}

}  // namespace serval
