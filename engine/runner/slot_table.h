// What the runner knows of the sequences that run: per slot the tokens by position, the block tables and how
// to sample. Filled from Batches alone; all its memory is there from the start, but for the lists of a
// sequence's sampling parameters, which keep their size from one sequence to the next.
#pragma once

#include <span>
#include <vector>

#include "engine/batch.h"
#include "engine/kv_geometry.h"
#include "kernels/sample.h"

namespace serval {

struct Slot {
  SeqId seq = 0;
  bool live = false;
  SamplingParams sampling;
  SpeculationParams speculation;
  Pooling pooling = Pooling::kNone;
  int second_text = 0;  // Request::second_text
  std::vector<TokenId> end_ids;  // not to be drawn before min_tokens are out
  int num_prompt = 0;
  int first_row = 0;                   // of the sequence's class in the tables by position
  TokenId* tokens = nullptr;           // [max_model_len] by position
  int num_tokens = 0;                  // known positions, drafts of the last step included
  int num_counted = 0;                 // of them, from the front, that the device has counted for penalties
  BlockId* blocks[kMaxKvGroups] = {};  // [table_stride] by position / block_size; -1: never read
  int num_blocks[kMaxKvGroups] = {};   // the table's length so far
  int num_lent[kMaxKvGroups] = {};     // of them, from the end, a drafter's
};

class SlotTable {
 public:
  SlotTable(int num_slots, int max_model_len, const BlockGeometry& geometry);

  static size_t planned_bytes(int num_slots, int max_model_len, const BlockGeometry& geometry);

  // The table side of a batch: sequences that left, then those that came, then what each step appends.
  void update(const Batch& batch);

  // The token at a position of the sequence, now known; nothing when the slot is another's by now.
  void learn(SeqId seq, SlotId slot, int position, TokenId token);

  // Tokens of the slot before position `end` that are known by now and were not handed out yet: what joins
  // the counts of penalties. Drafts lie behind `end`.
  CountedTokens count_known(SlotId slot, int end);

  // Between two steps a drafter may put guesses behind the known tokens: for positions before `end` that the table does
  // not reach it lends blocks of its own, from `first` on. take_back() leaves the table as it was.
  void guess(SlotId slot, int position, TokenId token) { slots_[slot].tokens[position] = token; }
  void lend(SlotId slot, int group, BlockId first, int end);
  void take_back(SlotId slot);

  // Null when the slot is another's by now.
  const Slot* find(SeqId seq, SlotId slot) const {
    return slots_[slot].live && slots_[slot].seq == seq ? &slots_[slot] : nullptr;
  }
  const Slot& of(const SeqStep& step) const { return slots_[index_of(step)]; }
  int table_stride() const { return table_stride_; }

 private:
  SlotId index_of(const SeqStep& step) const;
  void admit(const Admission& admission);
  void append(const Batch& batch, const SeqStep& step);

  int max_model_len_;
  int table_stride_;
  BlockGeometry geometry_;
  std::vector<int32_t> memory_;  // of all tokens and tables
  std::vector<Slot> slots_;
};

}  // namespace serval
