#include "engine/runner/speculators/prediction_speculator.h"

#include <algorithm>

#include "engine/runner/speculators/draft_host.h"

namespace serval {

size_t PredictionSpeculator::planned_bytes(int num_slots, int max_model_len) {
  return num_slots * (max_model_len * sizeof(TokenId) + sizeof(Slot));
}

void PredictionSpeculator::start(const DraftHost& host) {
  start(host.steps.max_seqs, host.steps.max_model_len);
}

void PredictionSpeculator::start(int num_slots, int max_model_len) {
  tokens_.resize(static_cast<size_t>(num_slots) * max_model_len);
  slots_.resize(num_slots);
  for (int i = 0; i < num_slots; ++i) slots_[i].begin = i * max_model_len;
}

void PredictionSpeculator::admit(const Admission& newcomer) {
  Slot& slot = slots_[newcomer.slot];
  slot = {.begin = slot.begin, .size = static_cast<int>(newcomer.prediction.size())};
  std::ranges::copy(newcomer.prediction, tokens_.begin() + slot.begin);
}

void PredictionSpeculator::propose(std::span<DraftTask> tasks) {
  for (DraftTask& task : tasks) {
    Slot& slot = slots_[task.slot];
    if (slot.size == 0 || !task.wants_more()) continue;
    follow(slot, task.known.subspan(task.num_prompt));
    const int count = std::min({task.most - task.num_drafts, task.depth, slot.size - slot.next});
    for (int i = 0, parent = -1; i < count; ++i)
      parent = task.add(tokens_[slot.begin + slot.next + i], parent, kind());
  }
}

void PredictionSpeculator::follow(Slot& slot, std::span<const TokenId> output) const {
  const TokenId* const predicted = tokens_.data() + slot.begin;
  for (; slot.num_output < std::ssize(output); ++slot.num_output) {
    if (slot.next < slot.size && predicted[slot.next] == output[slot.num_output]) {
      slot.departed = ++slot.next;
      continue;
    }
    slot.next = slot.size;
    const int longest = std::min(slot.num_output + 1, kLongestMatch);
    int match = kLeastMatch - 1;
    // Places behind where it departed, then those before.
    for (int i = 0; i < slot.size && match < longest; ++i) {
      const int end = (slot.departed + i) % slot.size + 1;
      int length = 0;
      while (length < std::min(longest, end) && predicted[end - 1 - length] == output[slot.num_output - length]) ++length;
      if (length <= match) continue;
      match = length;
      slot.next = end;
    }
    if (match >= kLeastMatch) slot.departed = slot.next;
  }
}

}  // namespace serval
