#include "engine/runner/speculators/ngram_speculator.h"

#include <algorithm>
#include <array>

#include "engine/runner/speculators/draft_host.h"

namespace serval {

void NgramSpeculator::start(const DraftHost& host) {
  start(host.steps.max_seqs, host.steps.max_model_len);
}

void NgramSpeculator::propose(std::span<DraftTask> tasks) {
  std::array<TokenId, kMaxDrafts> guesses;
  for (DraftTask& task : tasks) {
    index_.read(task.slot, task.known);
    if (!task.wants_more()) continue;
    const int count = index_.guess(task.slot, task.known, std::span(guesses).first(std::min(task.most, task.depth)));
    for (int i = 0, parent = -1; i < count; ++i) parent = task.add(guesses[i], parent, kind());
  }
}

}  // namespace serval
