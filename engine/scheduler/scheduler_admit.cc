// Who is let in: a slot, the KV that is already there, and memory for what is known and what is to be
// expected.
#include "engine/scheduler/scheduler.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace serval {
namespace {

// Of the sequences that have ended so many count; before the first one ends they are taken to be this long.
constexpr int32_t kMaxEnded = 32;
constexpr double kUnknownOutput = 128;
// The part of everybody's growth that a newcomer must leave room for, in percent. With all of it nobody would
// ever give way, and too few would run while all are young (tried in docs/scheduler.md). Whoever gave way
// once comes back when it is likely to stay.
constexpr int64_t kReserve = 40, kReserveOfResumed = 80;

}  // namespace

// Time counts while somebody waits to be admitted.
void Scheduler::measure_line(Time now) {
  constexpr double kMemoryMs = 500;
  const double ms = std::chrono::duration<double, std::milli>(now - line_seen_).count();
  line_seen_ = now;
  const double kept = std::max(0.0, 1 - ms / kMemoryMs);
  line_ms_ *= kept;
  line_admitted_ *= kept;
  if (flows_.next_waiting()) line_ms_ += ms;
}

double Scheduler::ms_per_admission() const {
  return line_ms_ / std::max(1.0, line_admitted_);
}

// Of a flow that comes now: each before it has one admitted first.
double Scheduler::expected_wait_ms() const {
  return static_cast<double>(flows_.num_on_time()) * ms_per_admission();
}

// A short prompt is let in out of turn while slots are free.
bool Scheduler::goes_past_the_line(const RequestState& request_state) const {
  return free_slots_.size() > 1 && request_state.num_prompt <= config_.max_num_batched_tokens / kShortShare;
}

// A sequence that has never run waits in its flow; a fork first for its prompt.
void Scheduler::queue(Sequence& seq) {
  ++num_waiting_;
  if (seq.index == 0) waiting_tokens_ += seq.queued_tokens = seq.num_prompt();
  if (!seq.parent || seq.num_prompt() == 1) flows_.wait(seq);
}

// A waiting sequence runs now, or has ended.
void Scheduler::leave_line(Sequence& seq) {
  --num_waiting_;
  waiting_tokens_ -= std::exchange(seq.queued_tokens, 0);
  if (seq.is_in_line) flows_.stop_waiting(seq);
  if (seq.admitted_before) std::erase(preempted_, &seq);
  if (refused_ == &seq) refused_ = nullptr;
  seq.overtaken = 0;
}

// Those that gave their memory away come back before anybody new, unless somebody of a higher priority waits.
void Scheduler::resume_preempted(Time now, Batch& batch) {
  while (may_admit_ && !preempted_.empty() && !free_slots_.empty()) {
    Sequence& seq = *preempted_.front();
    const Flow* const next = flows_.next_waiting();
    if (config_.policy == QueuePolicy::kPriority && next && next->priority < seq.request().priority) return;
    if (admit_next(seq, now, batch)) flows_.add_prompt(seq);
  }
}

// Admits the one whose turn it is. When there is no memory for it nobody is admitted in this step.
bool Scheduler::admit_next(Sequence& seq, Time now, Batch& batch) {
  may_admit_ = admit(seq, now, batch);
  if (!may_admit_) refused_ = &seq;
  return may_admit_;
}

// A short one may go past the one that there is no memory for, as long as all that did so together have not
// asked for more than that one does.
bool Scheduler::admit_short(Sequence& seq, Time now, Batch& batch) {
  if (gave_way_) return false;
  Sequence* const first = refused_;
  const int32_t cost = seq.num_to_compute() + expected_output(seq);
  if (first && first != &seq && first->overtaken + cost > first->num_known()) return false;
  if (!admit(seq, now, batch)) return false;
  if (first && first != &seq) first->overtaken += cost;
  return true;
}

// Gives a waiting sequence a slot and the KV that is already there. False, and nothing changed, when there is
// no room for it. Alone it always gets in: it can go in small steps.
bool Scheduler::admit(Sequence& seq, Time now, Batch& batch) {
  if (!may_have_room(seq)) return false;
  std::array<int32_t, kMaxKvGroups> available{}, lacking{};
  const int num_groups = kv_.geometry().num_groups;
  for (int g = 0; g < num_groups; ++g) available[g] = kv_.num_available(g);
  const bool is_fork = seq.parent && kv_.can_fork(seq.parent->kv, first_planned_row(*seq.parent), seq.num_prompt() - 1);
  RequestState& of = *seq.of;
  KvManager::Start start =
      is_fork ? kv_.start_from_parent(seq.kv, seq.parent->kv, of.root, seq.num_prompt() - 1)
              : kv_.start_from_cache(seq.kv, of.root, of.request.cache_salt, of.length_class, seq.to_look_up());
  seq.num_computed = start.num_computed;
  for (int g = 0; g < num_groups; ++g) lacking[g] = num_lacking(seq, g);
  const bool has_begun =
      (running_.empty() || has_room(seq, lacking)) && kv_.copy_part(seq.kv, start, batch.copies);
  seq.num_computed = start.num_computed;
  if (!has_begun && !running_.empty()) {
    seq.refusal = {.num_admitted = num_admitted_};
    for (int g = 0; g < num_groups; ++g)
      seq.refusal->wanted[g] = lacking[g] + available[g] - kv_.num_available(g);
    release(seq);
    return false;
  }
  seq.refusal.reset();
  ++num_admitted_;
  if (!seq.admitted_before) {
    flows_.count_admitted(*seq.flow);
    line_admitted_ += seq.index == 0;
  }
  leave_line(seq);
  seq.parent = nullptr;
  if (!seq.admitted_before) {
    seq.admitted_before = true;
    seq.first_scheduled = now;
    seq.cached_tokens = seq.num_computed;
    if (!is_fork && config_.enable_prefix_cache) {
      stats_.prefix_query_tokens += seq.num_prompt();
      stats_.prefix_hit_tokens += seq.num_computed;
    }
  }
  enter_slot(seq, batch);
  if (seq.num_computed >= seq.num_prompt() - 1) start_forks(seq);
  if (growths_of_ == step_) {  // one more for those behind it to fit beside
    const Growth growth = growth_of(seq);
    const auto shorter = [](const Growth& a, const Growth& b) { return a.tokens < b.tokens; };
    growths_.insert(std::upper_bound(growths_.begin(), growths_.end(), growth, shorter), growth);
    for (int g = 0; g < num_groups; ++g) window_lacking_[g] += num_lacking(seq, g);
  }
  return true;
}

// Where the sequence's rows stand when the step being planned begins.
int32_t Scheduler::first_planned_row(const Sequence& seq) const {
  int32_t row = seq.next_row();
  for (const Rows& rows : steps_[num_in_flight_].rows) {
    if (rows.seq == &seq) row -= rows.count;
  }
  return row;
}

void Scheduler::enter_slot(Sequence& seq, Batch& batch) {
  seq.state = SeqState::kRunning;
  seq.slot = free_slots_.back();
  free_slots_.pop_back();
  seq.admitted_in = step_;
  insert_in_order(running_, &seq);

  if (batch.num_admitted == static_cast<int32_t>(batch.admitted.size())) batch.admitted.emplace_back();
  Admission& admission = batch.admitted[batch.num_admitted++];
  admission.seq = seq.id;
  admission.slot = seq.slot;
  admission.sampling = seq.request().sampling;
  admission.sampling.seed = seed_of_choice(admission.sampling.seed, seq.index);
  admission.speculation = seq.request().speculation;
  admission.prediction = seq.request().prediction;
  admission.pooling = seq.request().pooling;
  admission.second_text = seq.request().second_text;
  admission.tokens = seq.tokens;
  admission.num_prompt = seq.num_prompt();
  admission.length_class = seq.of->length_class;
  kv_.tell(seq.kv, admission);
}

// False when the sequence was refused and nothing has come that could change this. Costs nothing that grows
// with its length, so that it may be asked at every step.
bool Scheduler::may_have_room(Sequence& seq) {
  if (!seq.refusal || running_.empty() || seq.refusal->num_admitted != num_admitted_) return true;
  const int32_t gained = kv_.gained(seq.kv, seq.to_look_up());
  if (gained < 0) return true;
  for (int g = 0; g < kv_.geometry().num_groups; ++g) seq.refusal->wanted[g] -= gained;
  return has_room(seq, seq.refusal->wanted);
}

// Whether blocks can be had for as long as the sequence runs: those it is lacking at once, and with them all
// that those that run lack, and a part of what they are expected to grow, up to every end of one of them,
// which frees what it has of its own.
bool Scheduler::has_room(const Sequence& seq, const std::array<int32_t, kMaxKvGroups>& lacking) {
  if (growths_of_ != step_) look_ahead();
  int64_t free = std::numeric_limits<int32_t>::max();
  Growth own = growth_of(seq);
  const BlockGeometry& geometry = kv_.geometry();
  for (int g = 0; g < geometry.num_groups; ++g) {
    if (geometry.rule(g).forgets()) {
      if (window_lacking_[g] + lacking[g] > kv_.num_available(g)) return false;
    } else {
      free = std::min<int64_t>(free, kv_.num_available(g));
      own.lacking = lacking[g];
    }
  }
  int64_t needed = own.lacking;  // up to the end at hand
  for (const Growth& growth : growths_) needed += growth.lacking;
  int64_t left = static_cast<int64_t>(growths_.size()) + 1;  // sequences that still run by then
  const int64_t reserve = seq.admitted_before ? kReserveOfResumed : kReserve;
  const int64_t block = int64_t{100} * geometry.block_size;
  const auto fits_until = [&](int32_t tokens) {
    return needed + (left * tokens * reserve + block - 1) / block <= free;
  };
  bool has_ended = false;
  for (const Growth& growth : growths_) {
    if (!has_ended && own.tokens <= growth.tokens) {
      if (!fits_until(own.tokens)) return false;
      needed -= own.lacking + own.own;
      --left;
      has_ended = true;
    }
    if (!fits_until(growth.tokens)) return false;
    needed -= growth.lacking + growth.own;
    --left;
  }
  return has_ended || fits_until(own.tokens);
}

void Scheduler::look_ahead() {
  growths_of_ = step_;
  growths_.clear();
  window_lacking_ = {};
  for (const Sequence* seq : running_) {
    growths_.push_back(growth_of(*seq));
    for (int g = 0; g < kv_.geometry().num_groups; ++g) window_lacking_[g] += num_lacking(*seq, g);
  }
  std::sort(growths_.begin(), growths_.end(),
            [](const Growth& a, const Growth& b) { return a.tokens < b.tokens; });
}

Scheduler::Growth Scheduler::growth_of(const Sequence& seq) const {
  const BlockGeometry& geometry = kv_.geometry();
  for (int g = 0; g < geometry.num_groups; ++g) {
    if (geometry.rule(g).forgets()) continue;
    const auto held = static_cast<int32_t>(seq.kv.blocks[g].size());
    return {.tokens = expected_output(seq),
            .lacking = num_lacking(seq, g),
            .own = held - std::min(held, seq.kv.num_shared)};
  }
  return {.tokens = 0, .lacking = 0, .own = 0};
}

// Blocks of the group that the sequence needs beside those it has: for its known tokens; in a group that
// forgets for all it is expected to have, those of one step at most.
int32_t Scheduler::num_lacking(const Sequence& seq, int group) const {
  const KvRule rule = kv_.geometry().rule(group);
  const auto held = static_cast<int32_t>(seq.kv.blocks[group].size());
  if (!rule.forgets()) return std::max(0, rule.blocks_for(seq.num_known()) - held);
  const int32_t rows = std::clamp(seq.num_known() - seq.num_computed, 1, config_.max_prefill_chunk);
  const int32_t first = seq.kv.first_block[group];
  const int32_t whole = rule.blocks_for(seq.num_known() + expected_output(seq)) - first;
  return std::max(0, std::min(whole, rule.blocks_of_step(rows)) - (held - first));
}

// Tokens it will still draw: known when only its length can end it, else as many as others have drawn,
// whatever it drew so far.
int32_t Scheduler::expected_output(const Sequence& seq) const {
  const SamplingParams& sampling = seq.request().sampling;
  const int32_t most = seq.max_len - static_cast<int32_t>(seq.tokens.size());
  if (sampling.ignore_eos && sampling.stop_token_ids.empty()) return most;
  return std::min(most, static_cast<int32_t>(num_ended_ == 0 ? kUnknownOutput : mean_output_));
}

void Scheduler::learn_output(int32_t num_output) {
  num_ended_ = std::min(num_ended_ + 1, kMaxEnded);
  mean_output_ += (num_output - mean_output_) / num_ended_;
}

}  // namespace serval
