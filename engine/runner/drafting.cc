#include "engine/runner/drafting.h"

#include <algorithm>
#include <utility>

namespace serval {

Drafting::Drafting(Drafters drafters, int max_seqs, int max_model_len)
    : drafters_(std::move(drafters)), max_model_len_(max_model_len) {
  if (drafters_.speculators.empty()) return;
  tasks_.resize(max_seqs);
  wanted_.resize(max_seqs);
}

size_t Drafting::planned_bytes(int max_seqs) {
  return max_seqs * (sizeof(DraftTask) + sizeof(Wanted));
}

void Drafting::start(const DraftHost& host) {
  for (const auto& speculator : drafters_.speculators) speculator->start(host);
}

void Drafting::begin_step(const Batch& batch) {
  for (const auto& speculator : drafters_.speculators) {
    for (int i = 0; i < batch.num_admitted; ++i) speculator->admit(batch.admitted[i]);
    if (!batch.copies.empty()) speculator->copy_kv(batch.copies);
  }
}

// False: the sequence is gone.
bool Drafting::set_task(const Sampler::Drawn& drawn, const SeqOutput& out, const SlotTable& slots,
                        DraftTask& task, Wanted& wanted) const {
  const Slot* const slot = slots.find(out.seq, drawn.slot);
  if (slot == nullptr || out.failed) return false;
  const int num_computed = drawn.num_known > 0 ? drawn.num_known - 1 : drawn.end_computed;
  const int num_known = std::min(std::max(drawn.num_known, num_computed), max_model_len_);
  task.seq = out.seq;
  task.slot = drawn.slot;
  task.known = {slot->tokens, static_cast<size_t>(num_known)};
  task.num_prompt = slot->num_prompt;
  task.first_computed = drawn.first_pos;
  task.num_computed = num_computed - drawn.first_pos;
  task.num_drafts = 0;
  // Behind the last guess one more token is drawn.
  const int room = max_model_len_ - num_known - 1;
  const SpeculationParams& asked = slot->speculation;
  const auto limit = [](int value, int most) { return value > 0 ? std::min(value, most) : most; };
  task.width = limit(asked.width, drafters_.max_width);
  task.depth = std::clamp(limit(asked.depth, drafters_.max_tokens), 0, std::max(room, 0));
  wanted.most = drawn.num_known > 0 ? std::min(task.depth * task.width, drafters_.max_tokens) : 0;
  wanted.drafters = asked.drafters;
  return true;
}

void Drafting::propose(std::span<const Sampler::Drawn> drawn, const SlotTable& slots, ModelOutput& output) {
  if (drafters_.speculators.empty()) return;
  int num_tasks = 0;
  for (size_t i = 0; i < drawn.size(); ++i) num_tasks += set_task(drawn[i], output.seqs[i], slots, tasks_[num_tasks], wanted_[num_tasks]);
  const std::span tasks(tasks_.data(), num_tasks);
  for (const auto& speculator : drafters_.speculators) {
    for (int i = 0; i < num_tasks; ++i) {
      const bool may = tasks[i].num_drafts == 0 && (wanted_[i].drafters & drafter_bit(speculator->kind())) != 0;
      tasks[i].most = may ? wanted_[i].most : 0;
    }
    speculator->propose(tasks);
  }
  size_t next = 0;
  for (SeqOutput& out : output.seqs) {
    if (next == tasks.size() || tasks[next].seq != out.seq) continue;
    const DraftTask& task = tasks[next++];
    out.drafts_begin = static_cast<int32_t>(output.drafts.size());
    out.num_drafts = task.num_drafts;
    output.drafts.insert(output.drafts.end(), task.drafts.begin(), task.drafts.begin() + task.num_drafts);
  }
}

}  // namespace serval
