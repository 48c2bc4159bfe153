#include "engine/runner/model_input.h"

#include <algorithm>
#include <bit>

#include "kernels/base/check.h"

namespace serval {

ModelInput::ModelInput(int max_rows, int max_seqs, int max_branches, int table_stride,
                       const BlockGeometry& geometry, const LongAttention& long_attention)
    : geometry_(geometry),
      long_attention_(long_attention),
      token_ids_(max_rows),
      positions_(max_rows),
      token_types_(max_rows) {
  if (long_attention.is_there()) {
    far_queries_.resize(max_rows);
    far_keys_.resize(max_rows);
  }
  const int most = max_seqs + max_branches;
  row_start_.resize(most + 1);
  first_pos_.resize(most);
  if (max_branches > 0) {
    tree_start_.resize(most);
    tree_masks_.resize(most);
  }
  for (int g = 0; g < geometry.num_groups; ++g) {
    groups_[g].slots.resize(max_rows);
    groups_[g].block_table.resize(static_cast<size_t>(most) * table_stride);
  }
}

size_t ModelInput::planned_bytes(int max_rows, int max_seqs, int max_branches, int table_stride,
                                 const BlockGeometry& geometry, const LongAttention& long_attention) {
  const size_t most = max_seqs + max_branches;
  const size_t per_group = max_rows + most * table_stride;
  return sizeof(int32_t) * ((long_attention.is_there() ? 5 : 3) * max_rows + 2 * most + 1 + geometry.num_groups * per_group) +
         (max_branches > 0 ? most * (sizeof(int32_t) + sizeof(uint64_t)) : 0);
}

// The rows of the batch; returns how many.
int ModelInput::fill(const Batch& batch, const SlotTable& slots, int token_offset) {
  // As wide as the longest table of this step: a device copies no more than is used.
  step_stride_ = 1;
  for (const SeqStep& step : batch.seqs)
    for (int g = 0; g < geometry_.num_groups; ++g)
      step_stride_ = std::max(step_stride_, slots.of(step).num_blocks[g]);
  int row = 0;
  num_seqs_ = 0;
  has_branches_ = false;
  for (const SeqStep& step : batch.seqs) {
    const Slot& slot = slots.of(step);
    SERVAL_CHECK(row + step.num_tokens <= static_cast<int>(token_ids_.size()), row, step.num_tokens,
                 token_ids_.size());
    for (int j = 0; j < step.num_tokens; ++j) {
      const TokenId token = slot.tokens[step.first_pos + j + token_offset];
      token_ids_[row + j] = token == kTokenOnDevice ? -1 - step.slot : token;
      set_position(row + j, slot, step.first_pos + j);
    }
    const int end = step.first_pos + step.num_tokens;
    for (int g = 0; g < geometry_.num_groups; ++g) {
      const int block_size = geometry_.rule(g).span(), kept_end = geometry_.rule(g).keeps_state() ? end - step.num_drafts : end;
      SERVAL_CHECK(slot.num_blocks[g] * block_size >= end, slot.num_blocks[g], block_size, end, g);
      std::fill_n(groups_[g].slots.begin() + row + kept_end - step.first_pos, end - kept_end, -1);
      for (int p = step.first_pos; p < kept_end; ++p) {
        const BlockId block = slot.blocks[g][p / block_size];
        SERVAL_CHECK(block >= 0, block, p, g);
        groups_[g].slots[row + p - step.first_pos] = block * block_size + p % block_size;
      }
    }
    add_sequence(slot, row, step.first_pos, 0, 0);
    int num_chained = 0;
    while (num_chained < step.num_drafts && batch.parents[step.parents_begin + num_chained] == num_chained - 1)
      ++num_chained;
    if (num_chained < step.num_drafts) fill_branches(batch, step, slot, row, num_chained);
    row += step.num_tokens;
  }
  row_start_[num_seqs_] = row;
  return row;
}

// Guesses from the first on whose parent is not the token before it: each stands where it would as plain text.
void ModelInput::fill_branches(const Batch& batch, const SeqStep& step, const Slot& slot, int row,
                               int num_chained) {
  SERVAL_CHECK(!tree_masks_.empty() && geometry_.may_copy_part(), "no room for branches was planned");
  has_branches_ = true;
  const int num_known = step.num_tokens - step.num_drafts, tree_start = step.first_pos + num_known;
  uint64_t masks[kMaxDrafts];
  for (int i = 0; i < step.num_drafts; ++i) {
    const int32_t parent = batch.parents[step.parents_begin + i];
    masks[i] = (parent < 0 ? 0 : masks[parent]) | uint64_t{1} << i;
    if (i < num_chained) continue;
    const int position = tree_start + std::popcount(masks[i]) - 1;
    set_position(row + num_known + i, slot, position);
    add_sequence(slot, row + num_known + i, position, masks[i], tree_start);
  }
}

const ForwardInput& ModelInput::build(std::span<const Guess> guesses) {
  step_stride_ = 1;
  for (const Guess& guess : guesses)
    for (int g = 0; g < geometry_.num_groups; ++g) step_stride_ = std::max(step_stride_, guess.slot->num_blocks[g]);
  num_seqs_ = 0;
  has_branches_ = false;
  int row = 0;
  for (const Guess& guess : guesses) {
    has_branches_ |= guess.mask != 0;
    token_ids_[row] = guess.token;
    set_position(row, *guess.slot, guess.position);
    const int place = guess.tree_start + guess.place;
    for (int g = 0; g < geometry_.num_groups; ++g) {
      const int block_size = geometry_.rule(g).span();
      SERVAL_CHECK(place < guess.slot->num_blocks[g] * block_size, place, guess.slot->num_blocks[g], block_size, g);
      groups_[g].slots[row] = guess.slot->blocks[g][place / block_size] * block_size + place % block_size;
    }
    add_sequence(*guess.slot, row++, std::max(guess.position, guess.last_read), guess.mask, guess.tree_start);
  }
  row_start_[num_seqs_] = row;
  return view(row, row);
}

void ModelInput::set_position(int row, const Slot& slot, int position) {
  positions_[row] = slot.first_row + position;
  token_types_[row] = slot.second_text > 0 && position >= slot.second_text ? 1 : 0;
  if (!long_attention_.is_there()) return;
  far_queries_[row] = long_attention_.far_query_row(position);
  far_keys_[row] = long_attention_.far_key_row(position);
}

// The rows from `row` on are those of one sequence to attention.
void ModelInput::add_sequence(const Slot& slot, int row, int first_pos, uint64_t mask, int tree_start) {
  SERVAL_CHECK(num_seqs_ < static_cast<int>(first_pos_.size()), num_seqs_, first_pos_.size());
  row_start_[num_seqs_] = row;
  first_pos_[num_seqs_] = first_pos;
  if (!tree_masks_.empty()) {
    tree_masks_[num_seqs_] = mask;
    tree_start_[num_seqs_] = tree_start;
  }
  for (int g = 0; g < geometry_.num_groups; ++g)
    std::copy_n(slot.blocks[g], slot.num_blocks[g],
                groups_[g].block_table.begin() + int64_t{num_seqs_} * step_stride_);
  ++num_seqs_;
}

const ForwardInput& ModelInput::view(int rows, int padded_rows) {
  SERVAL_CHECK(padded_rows >= rows && padded_rows <= static_cast<int>(token_ids_.size()), rows, padded_rows,
               token_ids_.size());
  std::fill(token_ids_.begin() + rows, token_ids_.begin() + padded_rows, 0);
  std::fill(positions_.begin() + rows, positions_.begin() + padded_rows, 0);
  std::fill(token_types_.begin() + rows, token_types_.begin() + padded_rows, 0);
  input_.token_ids = {token_ids_.data(), static_cast<size_t>(padded_rows)};
  input_.positions = {positions_.data(), static_cast<size_t>(padded_rows)};
  input_.token_types = {token_types_.data(), static_cast<size_t>(padded_rows)};
  if (long_attention_.is_there()) {
    std::fill(far_queries_.begin() + rows, far_queries_.begin() + padded_rows, 0);
    std::fill(far_keys_.begin() + rows, far_keys_.begin() + padded_rows, 0);
    input_.far_queries = {far_queries_.data(), static_cast<size_t>(padded_rows)};
    input_.far_keys = {far_keys_.data(), static_cast<size_t>(padded_rows)};
  }
  for (int g = 0; g < geometry_.num_groups; ++g) {
    std::fill(groups_[g].slots.begin() + rows, groups_[g].slots.begin() + padded_rows, -1);
    input_.groups[g].slots = groups_[g].slots.data();
    input_.groups[g].attention = {.num_seqs = num_seqs_,
                                  .num_rows = padded_rows,
                                  .row_start = row_start_.data(),
                                  .first_pos = first_pos_.data(),
                                  .block_table = groups_[g].block_table.data(),
                                  .table_stride = step_stride_,
                                  .tree_masks = has_branches_ ? tree_masks_.data() : nullptr,
                                  .tree_start = has_branches_ ? tree_start_.data() : nullptr,
                                  .state_slots = geometry_.rule(g).keeps_state() ? groups_[g].slots.data() : nullptr};
  }
  return input_;
}

}  // namespace serval
