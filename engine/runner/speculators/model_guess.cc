#include "engine/runner/speculators/model_guess.h"

#include <algorithm>

#include "engine/runner/sampler.h"

namespace serval {

SampleRow guess_row(const DraftTask& task, const Slot& slot, int num_before, int num_logits, int vocab) {
  SampleRow row = sampled_row(slot, static_cast<int>(task.known.size()) - 1 + num_before, std::min(num_logits, vocab), nullptr);
  // What is counted is counted for the target's own draws.
  row.repetition_penalty = 1;
  row.presence_penalty = row.frequency_penalty = 0;
  if (num_logits < vocab) row.num_logit_bias = 0;
  row.num_top = task.width > 1 ? std::min(task.width, num_logits) : -1;
  return row;
}

int add_drawn(DraftTask& task, const Slot& slot, int parent, const SampleResult& result, const TopLogprob* top, int vocab,
              DrafterKind kind) {
  if (!result.finite || result.token >= vocab) return -1;
  const int place = task.add(result.token, parent, kind);
  for (int i = 0; i < task.width && task.width > 1 && task.wants_more(); ++i) {
    if (top[i].token != result.token && top[i].token < vocab) task.add(top[i].token, parent, kind);
  }
  return std::ranges::binary_search(slot.end_ids, result.token) ? -1 : place;
}

}  // namespace serval
