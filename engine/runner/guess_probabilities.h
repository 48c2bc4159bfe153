// By which probabilities a model drew its guesses, for the sequences that take them by rejection: for each slot the last
// chain that was guessed for it. Engine thread; host memory, all of it from the start.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "engine/batch.h"
#include "engine/runner/slot_table.h"

namespace serval {

class GuessProbabilities {
 public:
  // most: guesses of a slot. vocab: of the target.
  GuessProbabilities(int num_slots, int most, int64_t vocab)
      : most_(most), vocab_(vocab), chains_(num_slots), values_(size_t{1} * num_slots * most * vocab) {}
  static size_t planned_bytes(int num_slots, int most, int64_t vocab) {
    return num_slots * (sizeof(Chain) + sizeof(float) * most * vocab);
  }

  // A chain of guesses begins at this position of the slot's sequence.
  void begin(SeqId seq, SlotId slot, int position) { chains_[slot] = {seq, position, 0, {}}; }
  // [vocab], where those of the next one belong, or of one so many behind it; null: there is no room, or no memory for any.
  float* next(SlotId slot, int behind = 0) {
    const int place = chains_[slot].size + behind;
    return place < std::min<int>(most_, kMaxDrafts) ? at(slot, place) : nullptr;
  }
  // What was drawn by them.
  void drew(SlotId slot, TokenId token) {
    Chain& chain = chains_[slot];
    chain.tokens[chain.size++] = token;
  }
  // Of a guess behind `branch`, which follows the known tokens before `end`. Null: it was not drawn so.
  const float* find(const Slot& slot, SlotId id, int end, std::span<const TokenId> branch, TokenId guess) const {
    const Chain& chain = chains_[id];
    const int place = end + static_cast<int>(branch.size()) - chain.first_pos;
    if (most_ == 0 || chain.seq != slot.seq || place < 0 || place >= chain.size || chain.tokens[place] != guess) return nullptr;
    for (int i = 0; i < place; ++i) {
      const int position = chain.first_pos + i;
      if (chain.tokens[i] != (position < end ? slot.tokens[position] : branch[position - end])) return nullptr;
    }
    return at(id, place);
  }

 private:
  struct Chain {
    SeqId seq = 0;
    int first_pos = 0, size = 0;
    std::array<TokenId, kMaxDrafts> tokens;
  };
  float* at(SlotId slot, int place) { return values_.data() + (size_t{1} * slot * most_ + place) * vocab_; }
  const float* at(SlotId slot, int place) const { return values_.data() + (size_t{1} * slot * most_ + place) * vocab_; }

  int most_;
  int64_t vocab_;
  std::vector<Chain> chains_;
  std::vector<float> values_;  // [slots, most, vocab]
};

}  // namespace serval
