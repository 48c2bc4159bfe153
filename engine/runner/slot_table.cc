#include "engine/runner/slot_table.h"

#include <algorithm>
#include <utility>

#include "kernels/base/check.h"

namespace serval {
namespace {

size_t ints_per_slot(int max_model_len, const BlockGeometry& geometry) {
  return static_cast<size_t>(max_model_len) +
         static_cast<size_t>(geometry.num_groups) * geometry.table_entries(max_model_len);
}

}  // namespace

SlotTable::SlotTable(int num_slots, int max_model_len, const BlockGeometry& geometry)
    : max_model_len_(max_model_len),
      table_stride_(geometry.table_entries(max_model_len)),
      geometry_(geometry),
      memory_(num_slots * ints_per_slot(max_model_len, geometry)),
      slots_(num_slots) {
  int32_t* next = memory_.data();
  for (Slot& slot : slots_) {
    slot.tokens = next;
    next += max_model_len;
    for (int g = 0; g < geometry.num_groups; ++g, next += table_stride_) slot.blocks[g] = next;
  }
}

size_t SlotTable::planned_bytes(int num_slots, int max_model_len, const BlockGeometry& geometry) {
  return num_slots * (ints_per_slot(max_model_len, geometry) * sizeof(int32_t) + sizeof(Slot));
}

SlotId SlotTable::index_of(const SeqStep& step) const {
  SERVAL_CHECK(step.slot >= 0 && step.slot < static_cast<SlotId>(slots_.size()), step.slot, slots_.size());
  const Slot& slot = slots_[step.slot];
  SERVAL_CHECK(slot.live && slot.seq == step.seq, step.slot, slot.live, slot.seq, step.seq);
  return step.slot;
}

void SlotTable::update(const Batch& batch) {
  for (const SlotId id : batch.freed) {
    SERVAL_CHECK(id >= 0 && id < static_cast<SlotId>(slots_.size()) && slots_[id].live, id, slots_.size());
    slots_[id].live = false;
  }
  for (int i = 0; i < batch.num_admitted; ++i) admit(batch.admitted[i]);
  for (const SeqStep& step : batch.seqs) append(batch, step);
}

void SlotTable::admit(const Admission& admission) {
  SERVAL_CHECK(admission.slot >= 0 && admission.slot < static_cast<SlotId>(slots_.size()), admission.slot,
               slots_.size());
  Slot& slot = slots_[admission.slot];
  SERVAL_CHECK(!slot.live, admission.slot, slot.seq, admission.seq);
  const auto num_tokens = static_cast<int>(admission.tokens.size());
  SERVAL_CHECK(num_tokens > 0 && num_tokens <= max_model_len_ && admission.num_prompt <= num_tokens,
               num_tokens, max_model_len_, admission.num_prompt);
  slot.seq = admission.seq;
  slot.live = true;
  slot.sampling = admission.sampling;
  slot.speculation = admission.speculation;
  slot.pooling = admission.pooling;
  slot.second_text = admission.second_text;
  slot.end_ids.assign(slot.sampling.stop_token_ids.begin(), slot.sampling.stop_token_ids.end());
  if (!slot.sampling.ignore_eos) {
    slot.end_ids.insert(slot.end_ids.end(), slot.sampling.eos_token_ids.begin(),
                        slot.sampling.eos_token_ids.end());
  }
  std::sort(slot.end_ids.begin(), slot.end_ids.end());
  slot.end_ids.erase(std::unique(slot.end_ids.begin(), slot.end_ids.end()), slot.end_ids.end());
  slot.num_prompt = admission.num_prompt;
  slot.first_row = geometry_.lengths.first_row(admission.length_class);
  std::copy(admission.tokens.begin(), admission.tokens.end(), slot.tokens);
  slot.num_tokens = num_tokens;
  slot.num_counted = 0;
  for (int g = 0; g < geometry_.num_groups; ++g) {
    SERVAL_CHECK(admission.first_block[g] >= 0 && admission.first_block[g] <= table_stride_,
                 admission.first_block[g], table_stride_);
    std::fill(slot.blocks[g], slot.blocks[g] + table_stride_, -1);
    slot.num_blocks[g] = admission.first_block[g];
  }
}

void SlotTable::learn(SeqId seq, SlotId id, int position, TokenId token) {
  Slot& slot = slots_[id];
  if (slot.live && slot.seq == seq && position < max_model_len_) slot.tokens[position] = token;
}

void SlotTable::lend(SlotId id, int group, BlockId first, int end) {
  Slot& slot = slots_[id];
  const int wanted = geometry_.rule(group).blocks_for(end);
  SERVAL_CHECK(wanted <= table_stride_ && slot.num_lent[group] == 0, wanted, table_stride_, slot.num_lent[group]);
  for (; slot.num_blocks[group] < wanted; ++slot.num_lent[group]) slot.blocks[group][slot.num_blocks[group]++] = first++;
}

void SlotTable::take_back(SlotId id) {
  Slot& slot = slots_[id];
  for (int g = 0; g < geometry_.num_groups; ++g) slot.num_blocks[g] -= std::exchange(slot.num_lent[g], 0);
}

CountedTokens SlotTable::count_known(SlotId id, int end) {
  Slot& slot = slots_[id];
  SERVAL_CHECK(slot.num_counted <= end && end <= slot.num_tokens, slot.num_counted, end, slot.num_tokens);
  CountedTokens counted{.slot = id, .restart = slot.num_counted == 0};
  counted.tokens = slot.tokens + slot.num_counted;
  while (slot.num_counted < end && slot.tokens[slot.num_counted] != kTokenOnDevice) {
    if (slot.num_counted < slot.num_prompt) ++counted.num_prompt;
    ++counted.num_tokens;
    ++slot.num_counted;
  }
  return counted;
}

void SlotTable::append(const Batch& batch, const SeqStep& step) {
  Slot& slot = slots_[index_of(step)];
  for (int g = 0; g < geometry_.num_groups; ++g) {
    const int begin = step.blocks_begin[g], count = step.num_blocks[g];
    SERVAL_CHECK(count >= 0 && begin >= 0 && begin + count <= static_cast<int>(batch.blocks.size()), begin,
                 count, batch.blocks.size());
    SERVAL_CHECK(step.first_block[g] >= 0 && step.first_block[g] <= slot.num_blocks[g] &&
                     step.first_block[g] + count <= table_stride_,
                 step.first_block[g], slot.num_blocks[g], count, table_stride_);
    slot.num_blocks[g] = step.first_block[g];
    for (int i = 0; i < count; ++i) {
      const BlockId block = batch.blocks[begin + i];
      const bool is_forgotten = block == kForgottenBlock && geometry_.rule(g).num_kept() > 0;
      SERVAL_CHECK((block >= 0 && block < geometry_.groups[g].num_blocks) || is_forgotten, block, g,
                   geometry_.groups[g].num_blocks);
      slot.blocks[g][slot.num_blocks[g]++] = block;
    }
  }
  SERVAL_CHECK(step.tokens_begin >= 0 && step.num_tokens > 0 &&
                   step.tokens_begin + step.num_tokens <= static_cast<int>(batch.tokens.size()),
               step.tokens_begin, step.num_tokens, batch.tokens.size());
  const int end = step.first_pos + step.num_tokens;
  SERVAL_CHECK(step.first_pos >= 0 && step.first_pos <= slot.num_tokens && end <= max_model_len_,
               step.first_pos, step.num_tokens, slot.num_tokens, max_model_len_);
  std::copy_n(batch.tokens.begin() + step.tokens_begin, step.num_tokens, slot.tokens + step.first_pos);
  // A prompt's later chunks are known already; what lies beyond a generating step are rejected drafts.
  slot.num_tokens = std::max(slot.num_prompt, end);
}

}  // namespace serval
