#include "engine/runner/speculators/ngram_speculator.h"

#include <algorithm>
#include <bit>

#include "engine/runner/speculators/draft_host.h"

namespace serval {

int NgramSpeculator::num_buckets(int max_model_len) {
  return static_cast<int>(std::bit_ceil(static_cast<unsigned>(max_model_len)));
}

size_t NgramSpeculator::planned_bytes(int num_slots, int max_model_len) {
  return num_slots * ((size_t{1} * num_buckets(max_model_len) + max_model_len) * sizeof(int32_t) + sizeof(Index));
}

void NgramSpeculator::start(const DraftHost& host) {
  start(host.steps.max_seqs, host.steps.max_model_len);
}

void NgramSpeculator::start(int num_slots, int max_model_len) {
  num_buckets_ = num_buckets(max_model_len);
  const size_t of_slot = size_t{1} * num_buckets_ + max_model_len;
  memory_.assign(num_slots * of_slot, -1);
  slots_.resize(num_slots);
  for (int i = 0; i < num_slots; ++i) slots_[i] = {&memory_[i * of_slot], &memory_[i * of_slot + num_buckets_]};
}

void NgramSpeculator::admit(const Admission& newcomer) {
  Index& index = slots_[newcomer.slot];
  std::fill_n(index.latest, num_buckets_, -1);
  index.size = 0;
}

void NgramSpeculator::propose(std::span<DraftTask> tasks) {
  for (DraftTask& task : tasks) {
    Index& index = slots_[task.slot];
    read(index, task.known);
    if (task.wants_more()) guess(index, task);
  }
}

void NgramSpeculator::read(Index& index, std::span<const TokenId> known) const {
  for (; index.size < std::ssize(known); ++index.size) {
    if (index.size == 0) continue;
    const uint64_t pair = uint64_t{static_cast<uint32_t>(known[index.size - 1])} << 32 | static_cast<uint32_t>(known[index.size]);
    const auto bucket = static_cast<int>(pair * 0x9e3779b97f4a7c15ull >> 32 & (num_buckets_ - 1));
    index.before[index.size] = index.latest[bucket];
    index.latest[bucket] = index.size;
  }
}

void NgramSpeculator::guess(const Index& index, DraftTask& task) const {
  const std::span<const TokenId> known = task.known;
  if (std::ssize(known) < kLeastMatch) return;
  const int last = static_cast<int>(known.size()) - 1, most = std::min(task.most, task.depth);
  const int longest = std::max(most, kLeastMatch);
  int match = kLeastMatch - 1, match_end = 0;  // tokens [match_end - match, match_end) are the last ones
  for (int place = index.before[last], tried = 0; place >= 0 && match < longest && tried < kMaxTried; ++tried) {
    int length = 0;
    while (length < std::min(longest, place + 1) && known[place - length] == known[last - length]) ++length;
    if (length > match) {
      match = length;
      match_end = place + 1;
    }
    place = index.before[place];
  }
  if (match < kLeastMatch) return;
  // What follows may reach the last tokens themselves: then it goes on as they would again.
  const int period = last + 1 - match_end;
  for (int i = 0, parent = -1; i < std::min(match, most); ++i)
    parent = task.add(i < period ? known[match_end + i] : task.drafts[i - period].token, parent, kind());
}

}  // namespace serval
