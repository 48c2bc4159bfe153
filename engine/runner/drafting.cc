#include "engine/runner/drafting.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

namespace serval {
namespace {

// Who is further behind is left there: what is asked of it would cost more than it is likely to bring.
constexpr int kMostLag = 32;

std::span<const Draft> guesses_of(const DraftTask& task) {
  return std::span(task.drafts).first(task.num_drafts);
}

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
      num_look_ups_(std::ranges::count_if(drafters_.speculators, [](const auto& speculator) { return looks_up(speculator->kind()); })),
      max_model_len_(max_model_len),
      policy_(drafters_.is_closed_loop ? max_seqs : 0) {
  if (is_idle()) return;
  tasks_.resize(max_seqs);
  wanted_.resize(max_seqs);
  given_.resize(max_seqs);
  next_told_.resize(max_seqs);
  if (drafters_.merges) merged_.resize(max_seqs);
  if (!drafters_.is_closed_loop) return;
  found_.resize(num_look_ups_ * max_seqs);
  watched_.resize(num_look_ups_ * max_seqs);
  wishes_.reserve(drafters_.speculators.size() * max_seqs);
}

size_t Drafting::planned_bytes(int max_seqs, bool is_closed_loop) {
  constexpr size_t kMostLookUps = 3;
  const size_t of_loop = kMostLookUps * (sizeof(Tree) + sizeof(Watched)) + (kMostLookUps + 1) * sizeof(DraftPolicy::Wish);
  return max_seqs * (sizeof(DraftTask) + sizeof(Wanted) + sizeof(Tree) + sizeof(Given) + sizeof(int) + (is_closed_loop ? of_loop : 0)) +
         DraftPolicy::planned_bytes(max_seqs);
}

void Drafting::start(const DraftHost& host) {
  for (const auto& speculator : drafters_.speculators) speculator->start(host);
  if (drafters_.trace) drafters_.trace->start(host);
  policy_.start(!host.geometry.may_copy_part());
}

void Drafting::begin_step(const Batch& batch) {
  for (int i = 0; i < batch.num_admitted && drafters_.is_closed_loop; ++i) {
    policy_.admit(batch.admitted[i].slot);
    for (size_t s = 0; s < num_look_ups_; ++s) watched_of(s, batch.admitted[i].slot).tree.num_drafts = 0;
  }
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
  wanted.followed = wanted.depth > 0 ? asked.drafters : 0;
  for (int k = 0; k < kNumDrafters; ++k) wanted.depths[k] = (asked.drafters >> k & 1) != 0 ? wanted.depth : 0;
  const bool is_fixed = asked.acceptance == Acceptance::kExit || (asked.drafters != kAllDrafters && asked.depth > 0);
  wanted.is_closed_loop = drafters_.is_closed_loop && !is_fixed;
  return true;
}

void Drafting::keep(const Tensor& hidden) {
  for (const auto& speculator : drafters_.speculators) speculator->keep(hidden);
  if (drafters_.trace) drafters_.trace->keep(hidden);
}

void Drafting::learn_step(int rows, double ms) {
  if (drafters_.is_closed_loop && rows > 0) policy_.learn_step(rows, ms - asked_ms_);
  asked_ms_ = 0;
}

// One drafter for all tasks that have nothing yet.
void Drafting::ask_for_first(size_t index, int num_tasks) {
  const int k = static_cast<int>(drafters_.speculators[index]->kind());
  for (int i = 0; i < num_tasks; ++i) {
    DraftTask& task = tasks_[i];
    task.is_followed = (wanted_[i].followed >> k & 1) != 0;
    task.depth = task.num_drafts == 0 ? wanted_[i].depths[k] : 0;
    task.most = std::min(task.depth * task.width, wanted_[i].most);
  }
}

// One drafter for its part of all tasks.
void Drafting::ask_for_part(size_t index, int num_tasks) {
  for (int i = 0; i < num_tasks; ++i) {
    DraftTask& task = tasks_[i];
    const auto depth_of = [&](size_t of) { return wanted_[i].depths[static_cast<int>(drafters_.speculators[of]->kind())]; };
    int num_left = 0;
    for (size_t later = index; later < drafters_.speculators.size(); ++later) num_left += depth_of(later) > 0;
    task.num_drafts = 0;
    task.depth = depth_of(index);
    task.is_followed = task.depth > 0;
    const int room = std::max(0, wanted_[i].most - merged_[i].num_drafts);
    task.most = task.is_followed ? std::min(task.depth * task.width, (room + num_left - 1) / num_left) : 0;
  }
}

// All drafters in turn, as deep as is wanted.
void Drafting::ask_in_turn(int num_tasks, DraftWork& work) {
  for (Tree& merged : merged_) merged.num_drafts = 0;
  for (size_t s = 0; s < drafters_.speculators.size(); ++s) {
    Speculator& speculator = *drafters_.speculators[s];
    drafters_.merges ? ask_for_part(s, num_tasks) : ask_for_first(s, num_tasks);
    speculator.propose({tasks_.data(), static_cast<size_t>(num_tasks)});
    work += speculator.work();
    for (int i = 0; drafters_.merges && i < num_tasks; ++i) merged_[i].add(guesses_of(tasks_[i]));
  }
}

// What is guessed alike at the same place is one guess, of whoever came first.
void Drafting::Tree::add(std::span<const Draft> guesses) {
  std::array<int, kMaxDrafts> place;
  for (size_t i = 0; i < guesses.size(); ++i) {
    const Draft& draft = guesses[i];
    const int parent = draft.parent < 0 ? -1 : place[draft.parent];
    place[i] = 0;
    while (place[i] < num_drafts && (drafts[place[i]].parent != parent || drafts[place[i]].token != draft.token)) ++place[i];
    if (place[i] == num_drafts) drafts[num_drafts++] = {draft.token, parent, draft.by};
  }
}

// The closed loop: what costs nothing to make is made, then it is decided what of that is verified and who else is asked.
void Drafting::ask_what_pays(int num_tasks, DraftWork& work) {
  watch(num_tasks);
  look_up(num_tasks);
  choose(num_tasks);
  for (size_t s = num_look_ups_; s < drafters_.speculators.size(); ++s) {
    Speculator& speculator = *drafters_.speculators[s];
    ask_for_first(s, num_tasks);
    int before = 0;
    for (int i = 0; i < num_tasks; ++i) before += tasks_[i].num_drafts;
    const auto begin = std::chrono::steady_clock::now();
    speculator.propose({tasks_.data(), static_cast<size_t>(num_tasks)});
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    work += speculator.work();
    asked_ms_ += took.count();
    learn_cost(speculator.kind(), num_tasks, took.count());
  }
}

// Of tasks that the loop decides on alone.
void Drafting::learn_cost(DrafterKind kind, int num_tasks, double ms) {
  int num_seqs = 0, depth = 0;
  for (int i = 0; i < num_tasks; ++i) {
    if (!wanted_[i].is_closed_loop) return;
    if (tasks_[i].num_drafts == 0 || tasks_[i].drafts[0].by != kind) continue;
    ++num_seqs;
    depth = std::max(depth, depth_of(guesses_of(tasks_[i])));
  }
  policy_.learn_cost(kind, num_seqs, depth, ms);
}

// What was looked up for a slot, beside what was drawn since.
void Drafting::watch(int num_tasks) {
  for (int i = 0; i < num_tasks; ++i) {
    const std::span<const TokenId> known = tasks_[i].known;
    for (size_t s = 0; s < num_look_ups_; ++s) {
      Watched& watched = watched_of(s, tasks_[i].slot);
      const std::span<const Draft> guesses = watched.tree.all();
      if (guesses.empty()) continue;
      const int depth = depth_of(guesses);
      bool is_right = true;
      while (is_right && watched.num_true < depth && watched.num_known < std::ssize(known)) {
        const TokenId token = known[watched.num_known++];
        const auto next = std::ranges::find_if(guesses, [&](const Draft& draft) { return draft.parent == watched.last && draft.token == token; });
        is_right = next != guesses.end();
        watched.last = static_cast<int>(next - guesses.begin());
        watched.num_true += is_right;
      }
      if (is_right && watched.num_true < depth) continue;
      if (wanted_[i].is_closed_loop) policy_.learn(tasks_[i].slot, guesses[0].by, depth, watched.num_true);
      watched.tree.num_drafts = 0;
    }
  }
}

void Drafting::look_up(int num_tasks) {
  for (size_t s = 0; s < num_look_ups_; ++s) {
    for (int i = 0; i < num_tasks; ++i) tasks_[i].num_drafts = 0;
    ask_for_first(s, num_tasks);
    drafters_.speculators[s]->propose({tasks_.data(), static_cast<size_t>(num_tasks)});
    for (int i = 0; i < num_tasks; ++i) {
      const DraftTask& task = tasks_[i];
      Tree& found = found_of(s, i);
      found.num_drafts = 0;
      found.add(guesses_of(task));
      Watched& watched = watched_of(s, task.slot);
      if (task.num_drafts > 0 && watched.tree.num_drafts == 0) watched = {.tree = found, .num_known = static_cast<int>(task.known.size())};
    }
  }
  for (int i = 0; i < num_tasks; ++i) tasks_[i].num_drafts = 0;
}

// Which of what was found is verified, and how deep each of the others is asked.
void Drafting::choose(int num_tasks) {
  const auto num_decoding = static_cast<int>(
      std::count_if(wanted_.begin(), wanted_.begin() + num_tasks, [](const Wanted& wanted) { return wanted.most > 0; }));
  wishes_.clear();
  for (int i = 0; i < num_tasks; ++i) {
    for (size_t s = 0; s < drafters_.speculators.size() && wanted_[i].is_closed_loop; ++s) wishes_.push_back(wish_of(s, i));
  }
  policy_.choose(wishes_, std::max(num_decoding, 1));
  size_t next = 0;
  for (int i = 0; i < num_tasks; ++i) {
    Wanted& wanted = wanted_[i];
    for (size_t s = 0; s < drafters_.speculators.size(); ++s) {
      const int k = static_cast<int>(drafters_.speculators[s]->kind());
      if (wanted.is_closed_loop) {
        const DraftPolicy::Wish& wish = wishes_[next++];
        wanted.depths[k] = wish.depth;
        if (!wish.is_worth) wanted.followed &= ~(uint32_t{1} << k);
      }
      if (s < num_look_ups_) take(found_of(s, i).all(), i, wanted.depths[k]);
    }
  }
}

DraftPolicy::Wish Drafting::wish_of(size_t index, int i) const {
  const Speculator& speculator = *drafters_.speculators[index];
  const int depth = wanted_[i].depths[static_cast<int>(speculator.kind())];
  DraftPolicy::Wish wish = {.slot = tasks_[i].slot, .kind = speculator.kind(), .most = depth, .width = tasks_[i].width, .decodes = wanted_[i].most > 0};
  if (index < num_look_ups_) {
    const std::span<const Draft> guesses = found_[index * tasks_.size() + i].all();
    wish.most = depth_of(guesses);
    wish.width = std::max(1, static_cast<int>(guesses.size()) / std::max(1, wish.most));
    wish.is_made = true;
  } else if (speculator.lag(tasks_[i]) > kMostLag) {
    wish.most = 0;
  }
  return wish;
}

// Of a tree what is no deeper, for a task that has nothing yet.
void Drafting::take(std::span<const Draft> guesses, int i, int depth) {
  DraftTask& task = tasks_[i];
  if (task.num_drafts > 0) return;
  task.most = wanted_[i].most;
  std::array<int, kMaxDrafts> level, place;
  for (size_t g = 0; g < guesses.size(); ++g) {
    const int parent = guesses[g].parent;
    level[g] = parent < 0 ? 1 : level[parent] + 1;
    if (level[g] <= depth && task.wants_more()) place[g] = task.add(guesses[g].token, parent < 0 ? -1 : place[parent], guesses[g].by);
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
    if (wanted_[num_tasks++].is_closed_loop && drawn[i].num_drafts > 0 && given.depth > 0 && !looks_up(given.by))
      policy_.learn(drawn[i].slot, given.by, std::min(drawn[i].num_drafts, given.depth), drawn[i].num_accepted);
  }
  if (drafters_.trace) drafters_.trace->write({tasks_.data(), static_cast<size_t>(num_tasks)});
  drafters_.is_closed_loop ? ask_what_pays(num_tasks, output.draft_work) : ask_in_turn(num_tasks, output.draft_work);
  int next = 0;
  for (SeqOutput& out : output.seqs) {
    if (next == num_tasks || tasks_[next].seq != out.seq) continue;
    const DraftTask& task = tasks_[next];
    const std::span<const Draft> drafts = drafters_.merges ? merged_[next].all() : guesses_of(task);
    ++next;
    out.drafts_begin = static_cast<int32_t>(output.drafts.size());
    out.num_drafts = static_cast<int32_t>(drafts.size());
    output.drafts.insert(output.drafts.end(), drafts.begin(), drafts.end());
    if (!drafts.empty()) given_[task.slot] = {drafts[0].by, depth_of(drafts), drafts[0].token};
  }
}

}  // namespace serval
