// Scheduler::next_batch: what runs in the next step, in the order it is decided.
#include "engine/scheduler/scheduler.h"

#include <algorithm>

#include "engine/scheduler/block_math.h"
#include "engine/scheduler/queue_policy.h"

namespace serval {

void Scheduler::next_batch(Time now, Batch& batch) {
  SERVAL_CHECK(num_in_flight_ < kMaxStepsInFlight, num_in_flight_);
  batch.clear();
  batch.step = steps_[num_in_flight_].number = ++step_;
  steps_[num_in_flight_].rows.clear();
  expire(now);
  sweep_finished();
  int32_t budget = config_.max_num_batched_tokens;
  if (plan_running(budget, batch)) admit_waiting(now, budget, batch);
  if (batch.empty()) return;  // nobody will see it: the freed slots are told with the next
  batch.freed.assign(freed_slots_.begin(), freed_slots_.end());
  freed_slots_.clear();
  ++num_in_flight_;
}

// The oldest goes first whatever it does, so that it always gets on; then decodes, which cost one row each;
// then prompts. False when one lacks memory that a step in flight may hold: nobody is planned past it, so
// that when that step is over those behind it can give way.
bool Scheduler::plan_running(int32_t& budget, Batch& batch) {
  order_.clear();
  int32_t decodes = 0;
  if (!running_.empty()) order_.push_back(running_[0]);
  for (const bool want_decoding : {true, false}) {
    for (size_t i = 1; i < running_.size(); ++i) {
      if (running_[i]->is_decoding() == want_decoding) order_.push_back(running_[i]);
    }
    if (want_decoding) decodes = static_cast<int32_t>(order_.size()) - (running_.empty() ? 0 : 1);
  }
  for (size_t i = 0; i < order_.size() && budget > 0; ++i) {
    Sequence& seq = *order_[i];
    if (seq.state != SeqState::kRunning) continue;  // preempted for one before it
    if (seq.num_to_plan() == 0) continue;           // its last token, or one it waits for, is in flight
    // A prompt leaves room for the decodes behind it.
    const int32_t reserved = i == 0 ? decodes : 0;
    const int32_t most = std::max(1, std::min(config_.max_prefill_chunk, budget - reserved));
    const int32_t rows = schedule(seq, most, batch);
    if (rows == 0 && num_in_flight_ > 0) return false;
    budget -= rows;
  }
  return true;
}

// Gives the sequence up to `most` rows of this step; returns how many. 0: there is no memory for even one.
int32_t Scheduler::schedule(Sequence& seq, int32_t most, Batch& batch) {
  const int32_t begin = seq.next_row();
  int32_t end = begin + std::min(seq.num_to_plan(), most);
  while (!grow(seq, end)) {
    if (preempt_one(seq)) continue;
    // Nobody younger can give way: do what the blocks at hand allow.
    for (int g = 0; g < geometry_.num_groups; ++g) {
      end = std::min(end, static_cast<int32_t>(seq.blocks[g].size()) * geometry_.block_size);
    }
    if (end <= begin) return 0;
    break;
  }
  emit_step(seq, end - begin, batch);
  return end - begin;
}

// Holds blocks for positions up to `end` in every group. False when some could not be had; what was had is
// kept.
bool Scheduler::grow(Sequence& seq, int32_t end) {
  const size_t wanted = blocks_for(end, geometry_.block_size);
  bool has_all = true;
  for (int g = 0; g < geometry_.num_groups; ++g) {
    while (seq.blocks[g].size() < wanted) {
      BlockRef block = allocate(g);
      if (!block) break;
      seq.blocks[g].push_back(std::move(block));
    }
    has_all = has_all && seq.blocks[g].size() >= wanted;
  }
  return has_all;
}

BlockRef Scheduler::allocate(int group) {
  BlockRef block = pools_[group]->allocate();
  if (!block && cache_.evict_one(group)) block = pools_[group]->allocate();
  return block;
}

// Takes the memory of the last in line, if one behind `below` has any and is in no step. Only what frees
// blocks counts.
bool Scheduler::preempt_one(const Sequence& below) {
  for (size_t i = running_.size(); i-- > 0;) {
    Sequence& victim = *running_[i];
    if (&victim == &below || !goes_before(config_.policy, below, victim)) return false;
    if (victim.num_in_flight > 0) continue;
    bool frees = false;
    for (int g = 0; g < geometry_.num_groups; ++g) {
      for (const BlockRef& block : victim.blocks[g]) frees = frees || block;
    }
    if (!frees) continue;
    preempt(victim);
    return true;
  }
  return false;
}

void Scheduler::preempt(Sequence& seq) {
  cache_computed(seq, /*with_tail=*/true);
  release(seq);
  running_.erase(std::find(running_.begin(), running_.end(), &seq));
  seq.state = SeqState::kWaiting;
  insert_in_order(waiting_, &seq);
  ++stats_.num_preemptions;
}

void Scheduler::admit_waiting(Time now, int32_t& budget, Batch& batch) {
  for (size_t i = 0; i < waiting_.size() && budget > 0 && !free_slots_.empty();) {
    Sequence& seq = *waiting_[i];
    // A fork waits until the prompt it shares is computed; those behind it need not.
    if (seq.parent && seq.parent->num_computed < seq.num_prompt() - 1) {
      ++i;
      continue;
    }
    if (!admit(seq, now, batch)) return;  // no overtaking: whoever is first gets the next blocks
    waiting_.erase(waiting_.begin() + i);
    budget -= schedule(seq, std::min(config_.max_prefill_chunk, budget), batch);
  }
}

// Gives a waiting sequence a slot and the KV that is already there. False, and nothing changed, when there is
// no room for its known tokens. Alone it always gets in: it can go in small steps.
bool Scheduler::admit(Sequence& seq, Time now, Batch& batch) {
  if (!may_have_room(seq)) return false;
  std::array<int32_t, kMaxKvGroups> available{};
  for (int g = 0; g < geometry_.num_groups; ++g) available[g] = num_available(g);
  PartialBlock partial;
  const bool is_fork = seq.parent && holds_window(*seq.parent, seq.num_prompt() - 1);
  const int32_t num_partial = is_fork ? take_forked(seq, partial) : take_cached(seq, partial);
  const bool has_begun =
      (running_.empty() || has_room(seq)) && copy_partial(seq, partial, num_partial, batch);
  if (!has_begun && !running_.empty()) {
    seq.refusal = {.num_admitted = num_admitted_};
    for (int g = 0; g < geometry_.num_groups; ++g)
      seq.refusal->wanted[g] = num_lacking(seq, g) + available[g] - num_available(g);
    release(seq);
    return false;
  }
  seq.parent = nullptr;
  seq.refusal.reset();
  ++num_admitted_;
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
  return true;
}

// Blocks of the group that the sequence's known tokens need beside those it has.
int32_t Scheduler::num_lacking(const Sequence& seq, int group) const {
  const int32_t window = geometry_.groups[group].window;
  const int32_t lacking =
      blocks_for(seq.num_known(), geometry_.block_size) - static_cast<int32_t>(seq.blocks[group].size());
  if (window == 0) return lacking;
  return std::min(lacking, blocks_for(window + config_.max_prefill_chunk, geometry_.block_size) + 1);
}

bool Scheduler::has_room(const Sequence& seq) const {
  for (int g = 0; g < geometry_.num_groups; ++g) {
    if (num_lacking(seq, g) > num_available(g)) return false;
  }
  return true;
}

// False when the sequence was refused and nothing has come that could change this. Costs nothing that grows
// with its length, so that it may be asked at every step.
bool Scheduler::may_have_room(Sequence& seq) {
  if (!seq.refusal || running_.empty() || seq.refusal->num_admitted != num_admitted_) return true;
  Sequence::Refusal& refusal = *seq.refusal;
  const int32_t gained = cache_.follow(seq.reached, {seq.tokens.data(), seq.tokens.size() - 1});
  if (gained < 0) return true;
  for (int g = 0; g < geometry_.num_groups; ++g) {
    refusal.wanted[g] -= gained;
    if (refusal.wanted[g] > num_available(g)) return false;
  }
  return true;
}

// Takes what the cache has of the sequence's known tokens; the last one is always computed, to have logits to
// sample from. Returns how many positions of `partial` go on from there.
int32_t Scheduler::take_cached(Sequence& seq, PartialBlock& partial) {
  if (!config_.enable_prefix_cache) return 0;
  Submission& submission = *seq.of;
  if (submission.root == RadixCache::kNone) {
    submission.root = cache_.root(submission.request.cache_salt);
    if (submission.root == RadixCache::kNone) return 0;
    cache_.pin(submission.root);
  }
  if (submission.request.sampling.num_prompt_logprobs >= 0) {
    stand_on(seq, submission.root, 0);
    return 0;
  }
  const RadixCache::Match match = cache_.match(submission.root, {seq.tokens.data(), seq.tokens.size() - 1});
  seq.reached = match.reached;
  stand_on(seq, match.node, match.num_blocks);
  seq.num_computed = match.num_blocks * geometry_.block_size;
  for (int g = 0; g < geometry_.num_groups; ++g) {
    seq.first_block[g] = first_needed_block(geometry_.groups[g], seq.num_computed, geometry_.block_size);
    seq.blocks[g].resize(match.num_blocks);
    RadixCache::NodeId node = match.node;
    for (int32_t i = match.num_blocks - 1; i >= seq.first_block[g]; --i, node = cache_.parent(node))
      seq.blocks[g][i] = cache_.block(node, g);
    if (match.partial != RadixCache::kNone) partial[g] = cache_.block(match.partial, g);
  }
  return match.partial_tokens;
}

// Whether the sequence still has the KV that a row at position `next` reads: one far ahead has let go of it.
bool Scheduler::holds_window(const Sequence& seq, int32_t next) const {
  for (int g = 0; g < geometry_.num_groups; ++g) {
    if (seq.first_block[g] > first_needed_block(geometry_.groups[g], next, geometry_.block_size))
      return false;
  }
  return true;
}

// Takes all but the last prompt token of the sequence it forks from: whole blocks are shared, of the one they
// part in `partial` has the returned number of positions.
int32_t Scheduler::take_forked(Sequence& seq, PartialBlock& partial) {
  const Sequence& parent = *seq.parent;
  const int32_t size = geometry_.block_size;
  const int32_t shared = seq.num_prompt() - 1, whole = shared / size, rest = shared % size;
  if (seq.of->root != RadixCache::kNone) stand_on(seq, seq.of->root, 0);
  seq.num_computed = whole * size;
  for (int g = 0; g < geometry_.num_groups; ++g) {
    seq.first_block[g] = first_needed_block(geometry_.groups[g], shared, size);
    seq.blocks[g].resize(whole);
    for (int32_t i = seq.first_block[g]; i < whole; ++i) seq.blocks[g][i] = parent.blocks[g][i];
    if (rest > 0) partial[g] = parent.blocks[g][whole];
  }
  return rest;
}

// The first positions of `partial` go into a block of the sequence's own. False when there is none to be had;
// one that starts from the cache can then compute them.
bool Scheduler::copy_partial(Sequence& seq, const PartialBlock& partial, int32_t num_tokens, Batch& batch) {
  if (num_tokens == 0) return true;
  PartialBlock own;
  for (int g = 0; g < geometry_.num_groups; ++g) {
    own[g] = allocate(g);
    if (!own[g]) return false;
  }
  for (int g = 0; g < geometry_.num_groups; ++g) {
    if (partial[g]) batch.copies.push_back({g, {partial[g].id(), own[g].id(), num_tokens}});
    seq.blocks[g].push_back(std::move(own[g]));
  }
  seq.num_computed += num_tokens;
  forget_passed_window(seq);
  return true;
}

void Scheduler::stand_on(Sequence& seq, RadixCache::NodeId node, int32_t num_blocks) {
  cache_.pin(node);
  seq.node = node;
  seq.num_cached_blocks = num_blocks;
}

void Scheduler::enter_slot(Sequence& seq, Batch& batch) {
  seq.state = SeqState::kRunning;
  seq.slot = free_slots_.back();
  free_slots_.pop_back();
  insert_in_order(running_, &seq);

  if (batch.num_admitted == static_cast<int32_t>(batch.admitted.size())) batch.admitted.emplace_back();
  Admission& admission = batch.admitted[batch.num_admitted++];
  admission.seq = seq.id;
  admission.slot = seq.slot;
  admission.sampling = seq.request().sampling;
  admission.sampling.seed = seed_of_choice(admission.sampling.seed, seq.index);
  admission.tokens = seq.tokens;
  admission.num_prompt = seq.num_prompt();
  for (int g = 0; g < geometry_.num_groups; ++g)
    admission.first_block[g] = seq.num_told[g] = seq.first_block[g];
}

void Scheduler::emit_step(Sequence& seq, int32_t rows, Batch& batch) {
  const int32_t begin = seq.next_row(), end = begin + rows;
  SeqStep step;
  step.seq = seq.id;
  step.slot = seq.slot;
  step.first_pos = begin;
  step.tokens_begin = static_cast<int32_t>(batch.tokens.size());
  step.num_tokens = rows;
  step.sample = end == static_cast<int32_t>(seq.tokens.size());
  step.prompt_logprobs = seq.request().sampling.num_prompt_logprobs >= 0 && begin < seq.num_prompt() - 1;
  batch.tokens.insert(batch.tokens.end(), seq.tokens.begin() + begin, seq.tokens.begin() + end);
  for (int g = 0; g < geometry_.num_groups; ++g) {
    step.blocks_begin[g] = static_cast<int32_t>(batch.blocks.size());
    for (; seq.num_told[g] < static_cast<int32_t>(seq.blocks[g].size()); ++seq.num_told[g]) {
      batch.blocks.push_back(seq.blocks[g][seq.num_told[g]].id());
    }
    step.num_blocks[g] = static_cast<int32_t>(batch.blocks.size()) - step.blocks_begin[g];
  }
  if (begin < seq.num_prompt()) stats_.prompt_tokens_computed += std::min(rows, seq.num_prompt() - begin);
  batch.seqs.push_back(step);
  if (step.sample) {
    seq.tokens.push_back(kTokenOnDevice);
    ++seq.num_unknown;
  }
  seq.num_rows_ahead += rows;
  ++seq.num_in_flight;
  steps_[num_in_flight_].rows.push_back({&seq, rows, step.sample});
}

}  // namespace serval
