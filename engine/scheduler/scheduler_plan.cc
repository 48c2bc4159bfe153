// What runs next. One rule: computed tokens catch up with known tokens, within the token budget. A decode is
// a sequence that lacks one token, a prefill one that lacks several; nothing else tells them apart.
#include <algorithm>
#include <cstdint>

#include "engine/scheduler/scheduler_impl.h"
#include "kernels/base/check.h"

namespace serval {

void Scheduler::Impl::next_batch(Time now, Batch& batch, EventBatch& events) {
  SERVAL_CHECK(in_flight.empty(), "the last batch has not come back", step);
  batch.clear();
  reserve(batch);
  end_overdue(now, events);
  budget = config.max_num_batched_tokens;
  has_preempted = false;
  plan_running(batch);
  plan_waiting(now, batch);
  SERVAL_CHECK(num_live == 0 || !batch.seqs.empty(), "nothing can progress", num_live, running.size(),
               waiting.size());
  if (batch.seqs.empty()) return;  // what left its slot is told with the next step
  batch.step = ++step;
  batch.freed.assign(left_slots.begin(), left_slots.end());
  left_slots.clear();
}

// The batch is recycled by its owner, so this allocates the first time only.
void Scheduler::Impl::reserve(Batch& batch) const {
  const size_t max_blocks = blocks_for(config.max_model_len, memory.geometry().block_size);
  batch.seqs.reserve(config.max_num_seqs);
  batch.tokens.reserve(config.max_num_batched_tokens);
  batch.blocks.reserve(config.max_num_seqs * max_blocks * memory.geometry().num_groups);
  batch.copies.reserve(static_cast<size_t>(config.max_num_seqs) * memory.geometry().num_groups);
  batch.freed.reserve(config.max_num_seqs);
  batch.admitted.reserve(config.max_num_seqs);
  while (static_cast<int>(batch.admitted.size()) < config.max_num_seqs) {
    batch.admitted.emplace_back().tokens.reserve(config.max_model_len);
  }
}

void Scheduler::Impl::end_overdue(Time now, EventBatch& events) {
  for (size_t i = by_id.size(); i-- > 0;) {
    const Time deadline = by_id[i]->request.deadline;
    if (deadline != Time{0} && now >= deadline) end_request(*by_id[i], FinishReason::kDeadline, events);
  }
}

// Oldest first, because a sequence that finds no block takes one from the youngest, and that must not be in
// the batch yet. A prefill leaves a token of the budget for every decode behind it, so decodes never wait for
// prefills; the oldest gets one row in any case.
void Scheduler::Impl::plan_running(Batch& batch) {
  int decodes_behind = 0;
  for (const Sequence* seq : running) decodes_behind += is_decode(*seq);
  for (size_t rank = 0; rank < running.size() && budget > 0; ++rank) {
    Sequence& seq = *running[rank];
    int want = 1;
    if (is_decode(seq)) {
      --decodes_behind;
    } else {
      const int share = std::max(budget - decodes_behind, rank == 0 ? 1 : 0);
      want = std::min({seq.num_known() - seq.num_computed, config.max_prefill_chunk, share});
    }
    if (want <= 0) continue;
    const int num_rows = grant(rank, want);
    if (num_rows > 0) schedule(seq, num_rows, batch);
  }
}

// How many of `want` rows have their blocks; the youngest give way when not a single one has. 0: it must
// wait, and keeps what it has until an older sequence needs that.
int Scheduler::Impl::grant(size_t rank, int want) {
  const Sequence& seq = *running[rank];
  do {
    const int64_t num_rows = std::min<int64_t>(want, memory.reachable(slots[seq.slot]) - seq.num_computed);
    if (num_rows > 0) return static_cast<int>(num_rows);
  } while (preempt_for(rank));
  return 0;
}

// Preempts the youngest sequence behind `rank` that gives a block of the missing kind by that alone. When
// none does, because the younger ones hold all they have together, the oldest may take them one by one: it
// must progress.
bool Scheduler::Impl::preempt_for(size_t rank) {
  const SequenceKv& kv = slots[running[rank]->slot];
  for (size_t victim = running.size() - 1; victim > rank; --victim) {
    for (int g = 0; g < memory.geometry().num_groups; ++g) {
      const bool is_missing =
          memory.num_available(g) == 0 && memory.num_missing(kv, g, running[rank]->num_computed + 1) > 0;
      if (!is_missing || memory.gain(slots[running[victim]->slot], g) == 0) continue;
      preempt(victim);
      return true;
    }
  }
  if (rank > 0 || running.size() == 1) return false;
  preempt(running.size() - 1);
  return true;
}

// Its KV stays in the prefix cache as long as nobody needs the room; what has gone by then is computed again.
void Scheduler::Impl::preempt(size_t rank) {
  Sequence& seq = *running[rank];
  running.erase(running.begin() + static_cast<int64_t>(rank));
  leave_slot(seq, true);
  seq.num_computed = 0;
  seq.state = SequenceState::kWaiting;
  insert_ordered(waiting, &seq);
  has_preempted = true;
  ++totals.num_preemptions;
}

// In order, without skipping the first for one behind it that would fit: everybody's turn comes.
void Scheduler::Impl::plan_waiting(Time now, Batch& batch) {
  if (has_preempted) return;
  while (!waiting.empty() && !free_slots.empty() && budget > 0) {
    if (!try_admit(*waiting.front(), now, batch)) return;
  }
}

bool Scheduler::Impl::try_admit(Sequence& seq, Time now, Batch& batch) {
  SequenceKv& kv = slots[free_slots.back()];
  int computed = start(seq, kv, readable_tokens(seq));
  if (kv.copy_tokens > 0 && !has_room(seq, kv, computed)) {
    // The source of a copy is one block more for a step; where that is too much, a few rows are computed
    // again.
    const int whole_blocks = computed - kv.copy_tokens;
    memory.release(kv, {}, 0, false);
    computed = start(seq, kv, whole_blocks);
  }
  if (!has_room(seq, kv, computed)) {
    memory.release(kv, {}, 0, false);
    return false;
  }
  seq.slot = free_slots.back();
  free_slots.pop_back();
  waiting.erase(waiting.begin());
  insert_ordered(running, &seq);
  seq.state = SequenceState::kRunning;
  seq.num_computed = computed;
  if (!seq.was_admitted) {
    seq.was_admitted = true;
    seq.first_scheduled = now;
    seq.cached_tokens = std::min(computed, seq.num_prompt);
    if (seq.index == 0) {
      totals.prompt_tokens += seq.num_prompt;
      if (config.enable_prefix_cache && seq.request->request.sampling.num_prompt_logprobs < 0) {
        totals.prefix_query_tokens += seq.num_prompt;
        totals.prefix_hit_tokens += seq.cached_tokens;
      }
    }
  }
  send_admission(seq, batch);
  const int64_t num_rows = std::min<int64_t>(
      {seq.num_known() - computed, config.max_prefill_chunk, budget, memory.reachable(kv) - computed});
  schedule(seq, static_cast<int>(num_rows), batch);
  return true;
}

// The last known token is always computed: its logits draw the next. Prompt log-probabilities need the rows
// before it as well, until they are reported; they are reported once, by sequence 0.
int Scheduler::Impl::readable_tokens(const Sequence& seq) const {
  const bool reports = seq.index == 0 && seq.request->request.sampling.num_prompt_logprobs >= 0;
  if (reports && seq.num_prompt_logprobs < seq.num_prompt - 1) return seq.num_prompt_logprobs;
  return seq.num_known() - 1;
}

// Gives the empty `kv` what of the first `limit` tokens is computed already, in the cache or by a running
// sibling.
int Scheduler::Impl::start(const Sequence& seq, SequenceKv& kv, int limit) {
  const int cached = memory.start_from_cache(kv, seq.request->root, seq.tokens, limit);
  const int shared = std::min(limit, seq.num_prompt - 1);
  if (cached >= shared) return cached;
  for (const Sequence* other = seq.request->first; other; other = other->next) {
    if (other->state != SequenceState::kRunning || other->num_computed < shared) continue;
    memory.release(kv, {}, 0, false);
    if (memory.start_from(kv, slots[other->slot], shared) == shared) return shared;
    return memory.start_from_cache(kv, seq.request->root, seq.tokens, limit);
  }
  return cached;
}

// A newcomer must find room for all its known tokens and the next one, beside what the running ones still
// need for theirs: only growth that nobody can foresee leads to a preemption. With nobody else running, one
// row is enough.
bool Scheduler::Impl::has_room(const Sequence& seq, const SequenceKv& kv, int computed) const {
  if (running.empty()) return memory.reachable(kv) > computed;
  const int chunk = std::min(config.max_prefill_chunk, config.max_num_batched_tokens);
  for (int g = 0; g < memory.geometry().num_groups; ++g) {
    int missing = memory.num_missing(kv, g, seq.num_known() + 1, chunk);
    for (const Sequence* other : running) {
      missing += memory.num_missing(slots[other->slot], g, other->num_known() + 1, chunk);
    }
    if (missing > memory.num_available(g)) return false;
  }
  return true;
}

void Scheduler::Impl::send_admission(Sequence& seq, Batch& batch) {
  Admission& admission = batch.admitted[batch.num_admitted++];
  admission.seq = seq.id;
  admission.slot = seq.slot;
  admission.sampling = seq.request->request.sampling;
  admission.sampling.seed = seed_of_choice(admission.sampling.seed, seq.index);
  admission.tokens.assign(seq.tokens.begin(), seq.tokens.end());
  admission.num_prompt = seq.num_prompt;
  const SequenceKv& kv = slots[seq.slot];
  for (int g = 0; g < memory.geometry().num_groups; ++g) {
    int first = 0;
    while (first < kv.num_blocks(g) && kv.block(g, first) < 0) ++first;
    admission.first_block[g] = seq.num_sent[g] = first;
  }
}

void Scheduler::Impl::schedule(Sequence& seq, int num_rows, Batch& batch) {
  SequenceKv& kv = slots[seq.slot];
  const int end = seq.num_computed + num_rows;
  memory.extend(kv, end);
  SeqStep item;
  item.seq = seq.id;
  item.slot = seq.slot;
  item.first_pos = seq.num_computed;
  item.tokens_begin = static_cast<int32_t>(batch.tokens.size());
  item.num_tokens = num_rows;
  item.sample = end == seq.num_known();
  item.prompt_logprobs = seq.index == 0 && seq.request->request.sampling.num_prompt_logprobs >= 0 &&
                         seq.num_prompt_logprobs < std::min(end, seq.num_prompt - 1);
  batch.tokens.insert(batch.tokens.end(), seq.tokens.begin() + seq.num_computed, seq.tokens.begin() + end);
  for (int g = 0; g < memory.geometry().num_groups; ++g) {
    if (kv.copy_tokens > 0) {
      const int copied = seq.num_computed / memory.geometry().block_size;
      batch.copies.push_back({g, {kv.copy_from[g].id(), kv.block(g, copied), kv.copy_tokens}});
    }
    item.blocks_begin[g] = static_cast<int32_t>(batch.blocks.size());
    item.num_blocks[g] = kv.num_blocks(g) - seq.num_sent[g];
    for (int i = seq.num_sent[g]; i < kv.num_blocks(g); ++i) batch.blocks.push_back(kv.block(g, i));
    seq.num_sent[g] = kv.num_blocks(g);
  }
  batch.seqs.push_back(item);
  in_flight.push_back({.seq = &seq,
                       .first_pos = item.first_pos,
                       .num_rows = num_rows,
                       .num_drafts = 0,
                       .prompt_logprobs = item.prompt_logprobs});
  seq.in_flight = true;
  budget -= num_rows;
}

}  // namespace serval
