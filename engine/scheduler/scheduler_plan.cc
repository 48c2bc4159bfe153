// Scheduler::next_batch: what runs in the next step, in the order it is decided.
#include "engine/scheduler/scheduler.h"

#include <algorithm>
#include <utility>

namespace serval {

void Scheduler::next_batch(Time now, Batch& batch) {
  SERVAL_CHECK(num_in_flight_ < kMaxStepsInFlight, num_in_flight_);
  batch.clear();
  batch.step = steps_[num_in_flight_].number = ++step_;
  steps_[num_in_flight_].rows.clear();
  steps_[num_in_flight_].planned_at = now;
  measure_line(now);
  expire(now);
  sweep_finished();
  int32_t budget = config_.max_num_batched_tokens;
  may_admit_ = true;
  gave_way_ = false;
  if (plan_decodes(budget, batch)) {
    plan_prompts(now, rows_for_prompts(budget, static_cast<int32_t>(batch.tokens.size())), batch);
  }
  if (batch.empty()) return;  // nobody will see it: the freed slots are told with the next
  batch.freed.assign(freed_slots_.begin(), freed_slots_.end());
  freed_slots_.clear();
  ++num_in_flight_;
}

// A row for each that decodes, and for what it has to replay, the oldest first. When the oldest is a prompt it takes its memory before all
// others, so that it always gets on. False when one lacks memory that a step in flight may hold: nobody is
// planned past it, so that when that step is over those behind it can give way.
bool Scheduler::plan_decodes(int32_t& budget, Batch& batch) {
  order_.clear();
  for (Sequence* seq : running_) {
    if (seq->is_decoding()) order_.push_back(seq);
  }
  if (!running_.empty() && running_[0]->is_prompt()) {
    Sequence& oldest = *running_[0];
    const int32_t rows = config_.whole_prompts ? oldest.num_to_plan() : std::min({oldest.num_to_plan(), config_.max_prefill_chunk, budget});
    const int32_t begin = oldest.next_row();
    if (reach(oldest, begin + rows) == begin && num_in_flight_ > 0) return false;
  }
  bool has_memory = true;
  auto num_behind = static_cast<int32_t>(order_.size());  // who have a row each
  for (Sequence* seq : order_) {
    --num_behind;
    if (seq->state != SeqState::kRunning) continue;  // preempted for one before it
    const int32_t begin = seq->next_row();
    seq->granted = reach(*seq, begin + std::min(seq->num_to_plan(), budget - num_behind)) - begin;
    budget -= seq->granted;
    if (seq->granted == 0 && num_in_flight_ > 0) {
      has_memory = false;
      break;
    }
  }
  // Guesses take what is left: nobody gives way for them.
  int32_t max_drafts = has_memory ? std::min(budget, max_drafts_of_step(config_)) : 0;
  for (Sequence* seq : order_) {
    if (seq->granted == 0) continue;
    const int32_t drafts = reach_drafts(*seq, max_drafts);
    max_drafts -= drafts;
    budget -= drafts;
    emit_step(*seq, std::exchange(seq->granted, 0), drafts, batch);
  }
  return has_memory;
}

// How many of its guesses, at most `most`, a sequence that decodes can have verified: those that leave room for
// one token more, in blocks that nobody has to give way for.
int32_t Scheduler::reach_drafts(Sequence& seq, int32_t most) {
  const auto known = static_cast<int32_t>(seq.tokens.size());
  const int32_t wanted =
      std::min({static_cast<int32_t>(seq.drafts.size()), most, seq.max_len - known - 1});
  if (wanted <= 0 || seq.granted < seq.num_to_plan()) return 0;
  return kv_.grow(seq.kv, known + wanted) - known;
}

// Those that decode wait for the whole step: beside them prompts get what the step's time has room for.
int32_t Scheduler::rows_for_prompts(int32_t budget, int32_t num_decoding) const {
  if (config_.step_budget_ms == 0 || num_decoding == 0) return budget;
  const int32_t least = num_decoding + std::min(kLeastPromptRows, budget);
  return cost_.max_rows(config_.step_budget_ms, least, num_decoding + budget) - num_decoding;
}

// Prompts: those that gave way before come back, then short ones have their share, then flows their turns.
void Scheduler::plan_prompts(Time now, int32_t budget, Batch& batch) {
  granted_.clear();
  for (Sequence* seq : running_) {
    if (seq->is_prompt()) flows_.add_prompt(*seq);
  }
  resume_preempted(now, batch);
  if (config_.whole_prompts) budget = std::min(budget, config_.max_prefill_chunk);
  const int32_t before = budget;
  const bool has_memory = config_.whole_prompts || plan_short(now, budget, batch);
  short_alone_ = before > budget && short_go_alone(static_cast<int>(batch.tokens.size()) + before - budget, budget);
  if (has_memory && !short_alone_) plan_turns(now, budget, batch);
  flows_.forget_prompts();
  for (Sequence* seq : granted_) emit_step(*seq, std::exchange(seq->granted, 0), 0, batch);
}

// Whether a step of `rows`, short prompts among them, does without the `more` that others could have: where that
// makes it four times as short by what steps cost so far, so that the short ones wait for the step at hand alone.
// Never twice in a row: the others lose at most the base of one step in two.
bool Scheduler::short_go_alone(int rows, int more) const {
  const double whole_ms = cost_.expected_ms(rows + more);
  return !short_alone_ && whole_ms > 0 && 4 * cost_.expected_ms(rows) <= whole_ms;
}

// A quarter of the rows is for prompts that fit it whole, shortest first. Nobody starves for it: all have
// their flow's turns too. False when one lacks memory that a step in flight may hold.
bool Scheduler::plan_short(Time now, int32_t& budget, Batch& batch) {
  int32_t left = (budget + kShortShare - 1) / kShortShare;
  order_.clear();
  for (Sequence* seq : running_) {
    const int32_t rows = seq->num_to_plan();
    if (rows <= left && (seq->is_prompt() || seq->admitted_in == step_)) order_.push_back(seq);
  }
  std::sort(order_.begin(), order_.end(), [](const Sequence* a, const Sequence* b) {
    const int32_t rows_a = a->num_to_plan(), rows_b = b->num_to_plan();
    return rows_a != rows_b ? rows_a < rows_b : a->arrival < b->arrival;
  });
  size_t next = 0;
  bool may_admit = true;
  while (left > 0) {
    Sequence* seq = next < order_.size() ? order_[next] : nullptr;
    Sequence* const waiting = may_admit && free_slots_.size() > 1 ? flows_.shortest() : nullptr;
    if (waiting && (!seq || waiting->num_to_compute() < seq->num_to_plan())) {
      if (waiting->num_to_compute() > left) break;
      may_admit = admit_short(*waiting, now, batch);
      if (!may_admit) continue;
      seq = waiting;
    } else if (seq) {
      ++next;
      if (seq->state != SeqState::kRunning) continue;
    }
    if (!seq || seq->num_to_plan() > left) break;
    const int32_t rows = grant(*seq, std::min(seq->num_to_plan(), config_.max_prefill_chunk));
    if (rows == 0 && num_in_flight_ > 0) return false;
    flows_.charge(*seq->flow, rows);
    left -= rows;
    budget -= rows;
  }
  return true;
}

// The flow whose turn it is gets rows for its oldest prompt, or has its next one admitted. Nobody overtakes
// for memory: whoever is first gets the next blocks.
void Scheduler::plan_turns(Time now, int32_t& budget, Batch& batch) {
  while (budget > 0) {
    Flow* const running = flows_.next_prompt();
    Flow* const waiting = may_admit_ && !free_slots_.empty() ? flows_.next_waiting() : nullptr;
    if (waiting && (!running || (waiting != running && flows_.goes_before(*waiting, *running)))) {
      Sequence& seq = *waiting->first_waiting;
      if (admit_next(seq, now, batch)) flows_.add_prompt(seq);
      continue;
    }
    if (!running) return;
    Sequence& seq = *running->first_prompt;
    const bool is_running = seq.state == SeqState::kRunning;  // not preempted for one before it
    const int32_t rest = rows_of(seq, budget);
    if (!is_running || rest <= 0) {
      flows_.drop_first_prompt(*running);
      continue;
    }
    flows_.take_turn(*running);
    const int32_t rows = grant(seq, rest);
    if (rows == 0) {
      if (num_in_flight_ > 0) return;
      flows_.drop_first_prompt(*running);
      continue;
    }
    budget -= rows;
    flows_.charge(*running, rows);
  }
}

// How many more rows of this step a prompt may have. One that is computed whole has all or none, and the first of a step all.
int32_t Scheduler::rows_of(const Sequence& seq, int32_t budget) const {
  if (!config_.whole_prompts) return std::min(std::min(seq.num_to_plan(), config_.max_prefill_chunk) - seq.granted, budget);
  const int32_t rest = seq.num_to_plan() - seq.granted;
  return rest <= budget || granted_.empty() ? rest : 0;
}

// Gives a prompt up to `most` more rows of this step; returns how many. 0: there is no memory for even one, or not for all of
// one that is computed whole.
int32_t Scheduler::grant(Sequence& seq, int32_t most) {
  const int32_t begin = seq.next_row() + seq.granted;
  const int32_t rows = std::max(0, reach(seq, begin + most) - begin);
  if (rows == 0 || (config_.whole_prompts && rows < most)) return 0;
  if (seq.granted == 0) granted_.push_back(&seq);
  seq.granted += rows;
  return rows;
}

// Holds blocks for positions up to `end`, or as far as they can be had when nobody younger can give way.
// Returns that end.
int32_t Scheduler::reach(Sequence& seq, int32_t end) {
  for (;;) {
    const int32_t reached = kv_.grow(seq.kv, end);
    if (reached == end || !preempt_one(seq)) return reached;
  }
}

// Takes the memory of the last in line, if one behind `below` has any and is in no step, this one included.
// Only what frees blocks counts.
bool Scheduler::preempt_one(const Sequence& below) {
  for (size_t i = running_.size(); i-- > 0;) {
    Sequence& victim = *running_[i];
    if (&victim == &below) return false;
    if (victim.num_in_flight > 0 || victim.granted > 0 || victim.admitted_in == step_) continue;
    if (!victim.kv.holds_blocks()) continue;
    preempt(victim);
    return true;
  }
  return false;
}

// Its whole blocks are in the cache already, and its tail would be the first to go.
void Scheduler::preempt(Sequence& seq) {
  release(seq);
  running_.erase(std::find(running_.begin(), running_.end(), &seq));
  seq.state = SeqState::kWaiting;
  ++num_waiting_;
  insert_in_order(preempted_, &seq);
  may_admit_ = false;  // not in the step in which somebody gave way
  gave_way_ = true;
  ++stats_.num_preemptions;
  // Forks that could have started wait for the prompt again.
  for (Sequence& fork : seq.of->sequences) {
    if (fork.parent == &seq && fork.is_in_line && seq.num_prompt() > 1) flows_.stop_waiting(fork);
  }
}

// The next `rows` known tokens of the sequence, and behind the last of them that many of its guesses.
void Scheduler::emit_step(Sequence& seq, int32_t rows, int32_t num_drafts, Batch& batch) {
  const int32_t begin = seq.next_row(), end = begin + rows;
  SeqStep step;
  step.seq = seq.id;
  step.slot = seq.slot;
  step.first_pos = begin;
  step.tokens_begin = static_cast<int32_t>(batch.tokens.size());
  step.num_tokens = rows + num_drafts;
  step.num_drafts = num_drafts;
  step.parents_begin = static_cast<int32_t>(batch.parents.size());
  step.sample = end == static_cast<int32_t>(seq.tokens.size());
  step.prompt_logprobs =
      seq.reports_prompt() && begin < seq.num_prompt() - 1 && end > seq.num_prompt_reported;
  batch.tokens.insert(batch.tokens.end(), seq.tokens.begin() + begin, seq.tokens.begin() + end);
  for (int32_t i = 0; i < num_drafts; ++i) {
    batch.tokens.push_back(seq.drafts[i].token);
    batch.parents.push_back(seq.drafts[i].parent);
  }
  kv_.tell(seq.kv, step, batch);
  if (begin < seq.num_prompt()) stats_.prompt_tokens_computed += std::min(rows, seq.num_prompt() - begin);
  const TokenConstraint* const constraint = seq.request().constraint.get();
  for (int32_t draft = -1; constraint && step.sample && draft < num_drafts; ++draft) {
    const std::span<const uint32_t> mask = constraint->mask(seq.index, draft);
    if (draft < 0) step.mask = static_cast<int32_t>(batch.masks.size() / mask.size());
    batch.masks.insert(batch.masks.end(), mask.begin(), mask.end());
  }
  batch.seqs.push_back(step);
  if (step.sample) {
    seq.tokens.push_back(kTokenOnDevice);
    ++seq.num_unknown;
  }
  seq.num_rows_ahead += step.num_tokens;
  seq.num_to_replay = std::max(0, seq.num_to_replay - rows);
  ++seq.num_in_flight;
  steps_[num_in_flight_].rows.push_back({&seq, step.num_tokens, num_drafts, step.sample});
}

}  // namespace serval
