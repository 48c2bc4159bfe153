#include "engine/runner/drafting.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

namespace serval {
namespace {

// Who is further behind is left there: what is asked of it would cost more than it is likely to bring.
constexpr int kMostLag = 32;

int depth_of(std::span<const Draft> drafts) {
  std::array<int, kMaxDrafts> depth;
  int most = 0;
  for (size_t i = 0; i < drafts.size(); ++i) {
    const int parent = drafts[i].parent;
    depth[i] = parent < 0 ? 1 : depth[parent] + 1;
    most = std::max(most, depth[i]);
  }
  return most;
}

}  // namespace

Drafting::Drafting(Drafters drafters, int max_seqs, int max_model_len)
    : drafters_(std::move(drafters)),
      max_model_len_(max_model_len),
      policy_(drafters_.is_closed_loop ? max_seqs : 0) {
  if (is_idle()) return;
  tasks_.resize(max_seqs);
  wanted_.resize(max_seqs);
  given_.resize(max_seqs);
  next_told_.resize(max_seqs);
  if (drafters_.merges) merged_.resize(max_seqs);
}

size_t Drafting::planned_bytes(int max_seqs) {
  return max_seqs * (sizeof(DraftTask) + sizeof(Wanted) + sizeof(Merged) + sizeof(Given) + sizeof(int)) + DraftPolicy::planned_bytes(max_seqs);
}

void Drafting::start(const DraftHost& host) {
  for (const auto& speculator : drafters_.speculators) speculator->start(host);
  if (drafters_.trace) drafters_.trace->start(host);
  policy_.start(!host.geometry.may_copy_part());
}

void Drafting::begin_step(const Batch& batch) {
  for (int i = 0; i < batch.num_admitted && drafters_.is_closed_loop; ++i) policy_.admit(batch.admitted[i].slot);
  if (is_idle()) return;
  for (int i = 0; i < batch.num_admitted; ++i) next_told_[batch.admitted[i].slot] = 0;
  for (const SeqStep& step : batch.seqs) {
    if (step.num_drafts > 0 && batch.tokens[step.tokens_begin + step.num_tokens - step.num_drafts] != given_[step.slot].first) given_[step.slot] = {};
  }
  for (const auto& speculator : drafters_.speculators) {
    for (int i = 0; i < batch.num_admitted; ++i) speculator->admit(batch.admitted[i]);
    if (!batch.copies.empty()) speculator->copy_kv(batch.copies);
  }
}

// False: the sequence is gone.
bool Drafting::set_task(const Sampler::Drawn& drawn, const SeqOutput& out, const SlotTable& slots,
                        DraftTask& task, Wanted& wanted) {
  const Slot* const slot = slots.find(out.seq, drawn.slot);
  if (slot == nullptr || out.failed || slot->pooling != Pooling::kNone) return false;
  const int num_computed = drawn.num_known > 0 ? drawn.num_known - 1 : drawn.end_computed;
  // What is replayed for a state was told when its guesses came true.
  int& next_told = next_told_[drawn.slot];
  const int first = std::max(drawn.first_pos, std::min(next_told, num_computed));
  next_told = std::max(next_told, num_computed);
  const int num_known = std::min(std::max(drawn.num_known, num_computed), max_model_len_);
  task.seq = out.seq;
  task.slot = drawn.slot;
  task.known = {slot->tokens, static_cast<size_t>(num_known)};
  task.num_prompt = slot->num_prompt;
  task.first_computed = first;
  task.num_computed = num_computed - first;
  task.first_row = drawn.first_row + first - drawn.first_pos;
  task.num_drafts = 0;
  // Behind the last guess one more token is drawn.
  const int room = max_model_len_ - num_known - 1;
  const SpeculationParams& asked = slot->speculation;
  const auto limit = [](int value, int most) { return value > 0 ? std::min(value, most) : most; };
  task.width = limit(asked.width, drafters_.max_width);
  wanted.depth = std::clamp(limit(asked.depth, drafters_.max_tokens), 0, std::max(room, 0));
  wanted.most = drawn.num_known > 0 ? drafters_.max_tokens : 0;
  wanted.drafters = asked.drafters;
  const bool is_fixed = asked.drafters != kAllDrafters && asked.depth > 0;
  wanted.is_closed_loop = drafters_.is_closed_loop && !is_fixed;
  return true;
}

void Drafting::keep(const Tensor& hidden) {
  for (const auto& speculator : drafters_.speculators) speculator->keep(hidden);
  if (drafters_.trace) drafters_.trace->keep(hidden);
}

void Drafting::learn_step(int rows, double ms) {
  if (drafters_.is_closed_loop && rows > 0) policy_.learn_step(rows, ms);
}

// How far each drafter is worth asking, for each task.
void Drafting::choose(int num_tasks) {
  const auto num_decoding = static_cast<int>(
      std::count_if(wanted_.begin(), wanted_.begin() + num_tasks, [](const Wanted& wanted) { return wanted.most > 0; }));
  for (int i = 0; i < num_tasks; ++i) {
    Wanted& wanted = wanted_[i];
    for (const auto& speculator : drafters_.speculators) {
      const DrafterKind kind = speculator->kind();
      DraftPolicy::Choice& choice = wanted.choices[static_cast<int>(kind)];
      choice = {};
      if ((wanted.drafters & drafter_bit(kind)) == 0) continue;
      if (wanted.is_closed_loop && speculator->lag(tasks_[i]) > kMostLag) continue;
      choice = wanted.is_closed_loop ? policy_.choose(tasks_[i].slot, kind, std::max(num_decoding, 1), wanted.depth)
                                     : DraftPolicy::Choice{wanted.depth, 0};
    }
  }
}

// One drafter for all tasks that have nothing yet and would not do better with one after it.
void Drafting::ask_for_best(size_t index, int num_tasks) {
  const DrafterKind kind = drafters_.speculators[index]->kind();
  for (int i = 0; i < num_tasks; ++i) {
    DraftTask& task = tasks_[i];
    const Wanted& wanted = wanted_[i];
    const auto choice_of = [&](DrafterKind of) { return wanted.choices[static_cast<int>(of)]; };
    const DraftPolicy::Choice choice = choice_of(kind);
    bool is_best = task.num_drafts == 0;
    for (size_t later = index + 1; later < drafters_.speculators.size(); ++later)
      is_best &= choice_of(drafters_.speculators[later]->kind()).gain <= choice.gain;
    task.is_followed = choice.depth > 0;
    task.depth = is_best ? choice.depth : 0;
    task.most = std::min(task.depth * task.width, wanted.most);
  }
}

// One drafter for its part of all tasks.
void Drafting::ask_for_part(size_t index, int num_tasks) {
  for (int i = 0; i < num_tasks; ++i) {
    DraftTask& task = tasks_[i];
    const auto is_asked = [&](size_t of) { return wanted_[i].choices[static_cast<int>(drafters_.speculators[of]->kind())].depth > 0; };
    int num_left = 0;
    for (size_t later = index; later < drafters_.speculators.size(); ++later) num_left += is_asked(later);
    task.num_drafts = 0;
    task.is_followed = is_asked(index);
    task.depth = task.is_followed ? wanted_[i].choices[static_cast<int>(drafters_.speculators[index]->kind())].depth : 0;
    const int room = std::max(0, wanted_[i].most - merged_[i].num_drafts);
    task.most = task.is_followed ? std::min(task.depth * task.width, (room + num_left - 1) / num_left) : 0;
  }
}

void Drafting::ask(size_t index, int num_tasks) {
  Speculator& speculator = *drafters_.speculators[index];
  drafters_.merges ? ask_for_part(index, num_tasks) : ask_for_best(index, num_tasks);
  const auto num_guesses = [&] {
    return std::accumulate(tasks_.begin(), tasks_.begin() + num_tasks, 0,
                           [](int sum, const DraftTask& task) { return sum + task.num_drafts; });
  };
  const int before = num_guesses();
  const auto begin = std::chrono::steady_clock::now();
  speculator.propose({tasks_.data(), static_cast<size_t>(num_tasks)});
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
  const bool is_closed_loop = std::all_of(wanted_.begin(), wanted_.begin() + num_tasks, [](const Wanted& wanted) { return wanted.is_closed_loop; });
  if (is_closed_loop) policy_.learn_cost(speculator.kind(), num_guesses() - before, took.count());
  for (int i = 0; drafters_.merges && i < num_tasks; ++i) merged_[i].add(tasks_[i]);
}

// What is guessed alike at the same place is one guess, of whoever came first.
void Drafting::Merged::add(const DraftTask& task) {
  std::array<int, kMaxDrafts> place;
  for (int i = 0; i < task.num_drafts; ++i) {
    const Draft& draft = task.drafts[i];
    const int parent = draft.parent < 0 ? -1 : place[draft.parent];
    place[i] = 0;
    while (place[i] < num_drafts && (drafts[place[i]].parent != parent || drafts[place[i]].token != draft.token)) ++place[i];
    if (place[i] == num_drafts) drafts[num_drafts++] = {draft.token, parent, draft.by};
  }
}

void Drafting::propose(std::span<const Sampler::Drawn> drawn, const Sampler& sampler, const SlotTable& slots,
                       ModelOutput& output) {
  if (is_idle()) return;
  int num_tasks = 0;
  for (size_t i = 0; i < drawn.size(); ++i) {
    if (!set_task(drawn[i], output.seqs[i], slots, tasks_[num_tasks], wanted_[num_tasks])) continue;
    tasks_[num_tasks].accepted = sampler.accepted(drawn[i]);
    tasks_[num_tasks].tried = sampler.tried(drawn[i]);
    tasks_[num_tasks].draws = sampler.draws(drawn[i]);
    const Given& given = given_[drawn[i].slot];
    if (wanted_[num_tasks++].is_closed_loop && drawn[i].num_drafts > 0 && given.depth > 0)
      policy_.learn_verified(drawn[i].slot, given.by, std::min(drawn[i].num_drafts, given.depth), drawn[i].num_accepted);
  }
  if (drafters_.trace) drafters_.trace->write({tasks_.data(), static_cast<size_t>(num_tasks)});
  choose(num_tasks);
  for (Merged& merged : merged_) merged.num_drafts = 0;
  for (size_t s = 0; s < drafters_.speculators.size(); ++s) {
    ask(s, num_tasks);
    output.draft_work += drafters_.speculators[s]->work();
  }
  int next = 0;
  for (SeqOutput& out : output.seqs) {
    if (next == num_tasks || tasks_[next].seq != out.seq) continue;
    const DraftTask& task = tasks_[next];
    const std::span<const Draft> drafts = drafters_.merges ? std::span(merged_[next].drafts).first(merged_[next].num_drafts)
                                                           : std::span(task.drafts).first(task.num_drafts);
    ++next;
    out.drafts_begin = static_cast<int32_t>(output.drafts.size());
    out.num_drafts = static_cast<int32_t>(drafts.size());
    output.drafts.insert(output.drafts.end(), drafts.begin(), drafts.end());
    if (!drafts.empty()) given_[task.slot] = {drafts[0].by, depth_of(drafts), drafts[0].token};
  }
}

}  // namespace serval
