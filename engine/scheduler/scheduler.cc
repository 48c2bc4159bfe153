#include "engine/scheduler/scheduler.h"

#include <algorithm>

#include "engine/scheduler/queue_policy.h"

namespace serval {
namespace {

int32_t blocks_for(int32_t tokens, int32_t block_size) {
  return (tokens + block_size - 1) / block_size;
}

// First table index that a row at position `next` still reads.
int32_t first_needed_block(const KvGroupGeometry& group, int32_t next, int32_t block_size) {
  return group.window == 0 ? 0 : std::max(0, next - group.window + 1) / block_size;
}

std::vector<BlockPool*> borrow(const std::vector<std::unique_ptr<BlockPool>>& pools) {
  std::vector<BlockPool*> result;
  for (const auto& pool : pools) result.push_back(pool.get());
  return result;
}

std::vector<std::unique_ptr<BlockPool>> make_pools(const BlockGeometry& geometry) {
  std::vector<std::unique_ptr<BlockPool>> pools;
  for (int g = 0; g < geometry.num_groups; ++g)
    pools.push_back(std::make_unique<BlockPool>(geometry.groups[g].num_blocks));
  return pools;
}

}  // namespace

bool fits(const BlockGeometry& geometry, const SchedulerConfig& config, int prompt_tokens, int max_tokens,
          int n) {
  const int32_t length = std::min(prompt_tokens + max_tokens, config.max_model_len);
  for (int g = 0; g < geometry.num_groups; ++g) {
    const KvGroupGeometry& group = geometry.groups[g];
    int64_t blocks = blocks_for(length, geometry.block_size);
    // A window never spans more than window + chunk positions, at most one block askew at each end.
    if (group.window > 0) {
      blocks = std::min<int64_t>(
          blocks, blocks_for(group.window + config.max_prefill_chunk, geometry.block_size) + 2);
    }
    if (blocks * n > group.num_blocks) return false;
  }
  return true;
}

Scheduler::Scheduler(const SchedulerConfig& config, const BlockGeometry& geometry)
    : config_(config), geometry_(geometry), pools_(make_pools(geometry)), cache_(geometry, borrow(pools_)) {
  SERVAL_CHECK(config.max_num_batched_tokens >= config.max_num_seqs, config.max_num_batched_tokens,
               config.max_num_seqs);
  for (SlotId slot = config.max_num_seqs - 1; slot >= 0; --slot) free_slots_.push_back(slot);
  const size_t most = static_cast<size_t>(config.max_num_seqs) + config.max_waiting;
  running_.reserve(config.max_num_seqs);
  order_.reserve(config.max_num_seqs);
  in_flight_.reserve(config.max_num_seqs);
  freed_slots_.reserve(config.max_num_seqs);
  waiting_.reserve(most);
  finished_.reserve(most);
  pending_.events.reserve(most);
}

Scheduler::~Scheduler() = default;

Result<void> Scheduler::add(Request request, Time) {
  if (running_.size() + waiting_.size() + request.n >
      static_cast<size_t>(config_.max_num_seqs) + config_.max_waiting) {
    return Error{ErrorKind::kOverloaded, "queue_full", "The queue is full; try again later.", "", 1};
  }
  const auto params = std::make_shared<const Request>(std::move(request));
  SERVAL_CHECK(!params->prompt.empty() && params->n > 0, params->id);
  std::vector<Sequence*>& members = requests_[params->id];
  SERVAL_CHECK(members.empty(), params->id);
  const size_t most_tokens =
      std::min<size_t>(params->prompt.size() + params->sampling.max_tokens, config_.max_model_len) + 1;
  for (int i = 0; i < params->n; ++i) {
    auto seq = std::make_unique<Sequence>();
    seq->id = next_seq_++;
    seq->request = params->id;
    seq->index = i;
    seq->params = params;
    seq->arrival = next_arrival_++;
    seq->tokens.reserve(most_tokens);
    seq->tokens = params->prompt;
    for (int g = 0; g < geometry_.num_groups; ++g)
      seq->blocks[g].reserve(blocks_for(most_tokens, geometry_.block_size) + 1);
    if (i > 0) seq->parent = members[0];
    members.push_back(seq.get());
    insert_waiting(seq.get());
    sequences_.emplace(seq->id, std::move(seq));
  }
  stats_.prompt_tokens += params->prompt.size();
  return {};
}

void Scheduler::insert_waiting(Sequence* seq) {
  const auto before = [&](const Sequence* a, const Sequence* b) {
    return goes_before(config_.policy, *a, *b);
  };
  waiting_.insert(std::lower_bound(waiting_.begin(), waiting_.end(), seq, before), seq);
}

Sequence* Scheduler::find(RequestId id, int index) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return nullptr;
  for (Sequence* seq : it->second) {
    if (seq->index == index) return seq;
  }
  return nullptr;
}

void Scheduler::abort(RequestId id) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return;
  for (Sequence* seq : it->second) {
    if (seq->state != SeqState::kFinished) finish(*seq, FinishReason::kAborted, pending_);
  }
}

void Scheduler::abort_all() {
  while (!running_.empty()) finish(*running_.back(), FinishReason::kAborted, pending_);
  while (!waiting_.empty()) finish(*waiting_.back(), FinishReason::kAborted, pending_);
}

void Scheduler::stop_string_matched(RequestId id, int index, int) {
  Sequence* seq = find(id, index);
  if (seq && seq->state != SeqState::kFinished) finish(*seq, FinishReason::kStopString, pending_);
}

void Scheduler::expire(Time now) {
  const auto late = [&](const Sequence* seq) {
    return seq->params->deadline != Time{0} && now >= seq->params->deadline;
  };
  for (std::vector<Sequence*>* line : {&running_, &waiting_}) {
    for (size_t i = 0; i < line->size();) {
      Sequence* seq = (*line)[i];
      if (late(seq)) {
        finish(*seq, FinishReason::kDeadline, pending_);  // leaves the line
      } else {
        ++i;
      }
    }
  }
}

// --- planning a step
// ----------------------------------------------------------------------------------------------------

void Scheduler::next_batch(Time now, Batch& batch) {
  SERVAL_CHECK(in_flight_.empty(), in_flight_.size());
  batch.clear();
  batch.step = ++step_;
  expire(now);
  sweep_finished();

  // The oldest goes first whatever it does, so that it always gets on; then decodes, which cost one row each;
  // then prompts.
  order_.clear();
  int32_t decodes = 0;
  if (!running_.empty()) order_.push_back(running_[0]);
  for (const bool want_decoding : {true, false}) {
    for (size_t i = 1; i < running_.size(); ++i) {
      if (running_[i]->is_decoding() == want_decoding) order_.push_back(running_[i]);
    }
    if (want_decoding) decodes = static_cast<int32_t>(order_.size()) - (running_.empty() ? 0 : 1);
  }
  int32_t budget = config_.max_num_batched_tokens;
  for (size_t i = 0; i < order_.size() && budget > 0; ++i) {
    Sequence& seq = *order_[i];
    if (seq.state != SeqState::kRunning) continue;  // preempted for one before it
    // A prompt leaves room for the decodes behind it.
    const int32_t reserved = i == 0 ? decodes : 0;
    const int32_t most = std::max(1, std::min(config_.max_prefill_chunk, budget - reserved));
    if (schedule(seq, most, batch)) budget -= in_flight_.back().num_rows;
  }
  admit_waiting(now, budget, batch);
  if (batch.empty()) return;  // nobody will see it: the freed slots are told with the next
  batch.freed.assign(freed_slots_.begin(), freed_slots_.end());
  freed_slots_.clear();
}

// Gives the sequence up to `most` rows of this step. False when there is no memory for even one.
bool Scheduler::schedule(Sequence& seq, int32_t most, Batch& batch) {
  const int32_t begin = seq.num_computed;
  int32_t end = begin + std::min(seq.num_to_compute(), most);
  while (!grow(seq, end)) {
    if (preempt_one(seq)) continue;
    // Nobody younger can give way: do what the blocks at hand allow.
    for (int g = 0; g < geometry_.num_groups; ++g) {
      end = std::min(end, static_cast<int32_t>(seq.blocks[g].size()) * geometry_.block_size);
    }
    if (end <= begin) return false;
    break;
  }
  emit_step(seq, end - begin, batch);
  return true;
}

// Holds blocks for positions up to `end` in every group. False when some could not be had; what was had is
// kept.
bool Scheduler::grow(Sequence& seq, int32_t end) {
  const int32_t wanted = blocks_for(end, geometry_.block_size);
  for (int g = 0; g < geometry_.num_groups; ++g) {
    while (static_cast<int32_t>(seq.blocks[g].size()) < wanted) {
      BlockRef block = allocate(g);
      if (!block) return false;
      seq.blocks[g].push_back(std::move(block));
    }
  }
  return true;
}

BlockRef Scheduler::allocate(int group) {
  BlockRef block = pools_[group]->allocate();
  if (!block && cache_.evict_one(group)) block = pools_[group]->allocate();
  return block;
}

// Takes the memory of the last in line, if one behind `below` has any and is not in this step. Only what
// frees blocks counts.
bool Scheduler::preempt_one(const Sequence& below) {
  for (size_t i = running_.size(); i-- > 0;) {
    Sequence& victim = *running_[i];
    if (&victim == &below || !goes_before(config_.policy, below, victim)) return false;
    if (victim.num_in_step > 0) continue;
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
  insert_waiting(&seq);
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
    if (schedule(seq, std::min(config_.max_prefill_chunk, budget), batch))
      budget -= in_flight_.back().num_rows;
  }
}

// Gives a waiting sequence a slot and the KV that is already there. False, and nothing changed, when its
// known tokens do not fit.
bool Scheduler::admit(Sequence& seq, Time now, Batch& batch) {
  Prefix prefix;
  if (seq.parent) {
    prefix = fork_prefix(*seq.parent);
  } else if (config_.enable_prefix_cache && seq.params->sampling.num_prompt_logprobs < 0) {
    prefix = find_prefix(seq);
  }
  for (int g = 0; g < geometry_.num_groups; ++g) {
    const int32_t wanted =
        blocks_for(seq.num_known(), geometry_.block_size) - static_cast<int32_t>(prefix.blocks[g].size());
    const int32_t most_at_once =
        geometry_.groups[g].window == 0
            ? wanted
            : std::min(wanted, blocks_for(geometry_.groups[g].window + config_.max_prefill_chunk,
                                          geometry_.block_size) +
                                   1);
    if (most_at_once > pools_[g]->num_free() + pools_[g]->num_cached_only()) return false;
  }
  std::array<BlockRef, kMaxKvGroups> copied;
  for (int g = 0; g < geometry_.num_groups && prefix.partial_tokens > 0; ++g) {
    copied[g] = allocate(g);
    if (!copied[g])
      return false;  // what is cached only is pinned by those that run: when they go on, it can be had
  }

  for (int g = 0; g < geometry_.num_groups; ++g) {
    seq.first_block[g] = first_needed_block(geometry_.groups[g], prefix.num_tokens, geometry_.block_size);
    for (BlockRef& block : prefix.blocks[g]) seq.blocks[g].push_back(std::move(block));
    if (prefix.partial_tokens > 0) {
      batch.copies.push_back({g, {prefix.partial[g].id(), copied[g].id(), prefix.partial_tokens}});
      seq.blocks[g].push_back(std::move(copied[g]));
    }
    seq.num_told[g] = seq.first_block[g];
  }
  seq.num_computed = prefix.num_tokens;
  if (config_.enable_prefix_cache) {
    seq.node = prefix.node != RadixCache::kNone ? prefix.node : cache_.root(seq.params->cache_salt);
    seq.num_cached_blocks = prefix.num_node_blocks;
    if (seq.node != RadixCache::kNone) cache_.pin(seq.node);
  }
  if (!seq.admitted_before) {
    seq.admitted_before = true;
    seq.first_scheduled = now;
    seq.cached_tokens = prefix.num_tokens;
    if (!seq.parent && config_.enable_prefix_cache) {
      stats_.prefix_query_tokens += seq.num_prompt();
      stats_.prefix_hit_tokens += prefix.num_tokens;
    }
  }
  seq.parent = nullptr;
  seq.state = SeqState::kRunning;
  seq.slot = free_slots_.back();
  free_slots_.pop_back();
  const auto before = [&](const Sequence* a, const Sequence* b) {
    return goes_before(config_.policy, *a, *b);
  };
  running_.insert(std::lower_bound(running_.begin(), running_.end(), &seq, before), &seq);

  if (batch.num_admitted == static_cast<int32_t>(batch.admitted.size())) batch.admitted.emplace_back();
  Admission& admission = batch.admitted[batch.num_admitted++];
  admission.seq = seq.id;
  admission.slot = seq.slot;
  admission.sampling = seq.params->sampling;
  admission.sampling.seed = seed_of_choice(seq.params->sampling.seed, seq.index);
  admission.tokens = seq.tokens;
  admission.num_prompt = seq.num_prompt();
  for (int g = 0; g < geometry_.num_groups; ++g) admission.first_block[g] = seq.first_block[g];
  return true;
}

// What the cache has of the sequence's known tokens; the last one is always computed, to have logits to
// sample from.
Scheduler::Prefix Scheduler::find_prefix(const Sequence& seq) {
  Prefix prefix;
  const std::span<const TokenId> wanted(seq.tokens.data(), seq.tokens.size() - 1);
  const RadixCache::Match match = cache_.match(seq.params->cache_salt, wanted);
  if (match.node == RadixCache::kNone) return prefix;
  prefix.node = match.node;
  prefix.num_node_blocks = match.num_blocks;
  prefix.partial_tokens = match.partial_tokens;
  prefix.num_tokens = match.num_blocks * geometry_.block_size + match.partial_tokens;
  for (int g = 0; g < geometry_.num_groups; ++g) {
    prefix.blocks[g].resize(match.num_blocks);
    const int32_t first = first_needed_block(geometry_.groups[g], prefix.num_tokens, geometry_.block_size);
    RadixCache::NodeId node = match.node;
    for (int32_t i = match.num_blocks - 1; i >= 0; --i, node = cache_.parent(node)) {
      if (i >= first) prefix.blocks[g][i] = cache_.block(node, g);
    }
    if (match.partial != RadixCache::kNone) prefix.partial[g] = cache_.block(match.partial, g);
  }
  return prefix;
}

// All but the last prompt token of the sequence it forks from: whole blocks shared, the one they part in
// copied.
Scheduler::Prefix Scheduler::fork_prefix(const Sequence& parent) const {
  Prefix prefix;
  prefix.num_tokens = parent.num_prompt() - 1;
  const int32_t whole = prefix.num_tokens / geometry_.block_size;
  prefix.partial_tokens = prefix.num_tokens % geometry_.block_size;
  for (int g = 0; g < geometry_.num_groups; ++g) {
    const int32_t first = first_needed_block(geometry_.groups[g], prefix.num_tokens, geometry_.block_size);
    // A parent far ahead has forgotten its window's beginning: then there is nothing to share.
    if (parent.first_block[g] > first ||
        parent.blocks[g].size() < static_cast<size_t>(whole) + (prefix.partial_tokens > 0))
      return {};
    prefix.blocks[g].resize(whole);
    for (int32_t i = first; i < whole; ++i) prefix.blocks[g][i] = parent.blocks[g][i];
    if (prefix.partial_tokens > 0) prefix.partial[g] = parent.blocks[g][whole];
  }
  return prefix;
}

void Scheduler::emit_step(Sequence& seq, int32_t rows, Batch& batch) {
  SeqStep step;
  step.seq = seq.id;
  step.slot = seq.slot;
  step.first_pos = seq.num_computed;
  step.tokens_begin = static_cast<int32_t>(batch.tokens.size());
  step.num_tokens = rows;
  step.sample = rows == seq.num_to_compute();
  step.prompt_logprobs =
      seq.params->sampling.num_prompt_logprobs >= 0 && seq.num_computed < seq.num_prompt() - 1;
  batch.tokens.insert(batch.tokens.end(), seq.tokens.begin() + seq.num_computed,
                      seq.tokens.begin() + seq.num_computed + rows);
  for (int g = 0; g < geometry_.num_groups; ++g) {
    step.blocks_begin[g] = static_cast<int32_t>(batch.blocks.size());
    for (; seq.num_told[g] < static_cast<int32_t>(seq.blocks[g].size()); ++seq.num_told[g]) {
      batch.blocks.push_back(seq.blocks[g][seq.num_told[g]].id());
    }
    step.num_blocks[g] = static_cast<int32_t>(batch.blocks.size()) - step.blocks_begin[g];
  }
  if (seq.num_computed < seq.num_prompt())
    stats_.prompt_tokens_computed += std::min(rows, seq.num_prompt() - seq.num_computed);
  batch.seqs.push_back(step);
  seq.num_in_step = rows;
  in_flight_.push_back({&seq, seq.num_computed, rows});
}

// --- taking a result in
// -------------------------------------------------------------------------------------------------

void Scheduler::apply(const ModelOutput& output, Time, EventBatch& events) {
  SERVAL_CHECK(output.step == step_ && output.seqs.size() == in_flight_.size(), output.step, step_,
               output.seqs.size(), in_flight_.size());
  for (size_t i = 0; i < in_flight_.size(); ++i) {
    Sequence& seq = *in_flight_[i].seq;
    const SeqOutput& out = output.seqs[i];
    SERVAL_CHECK(out.seq == seq.id, out.seq, seq.id);
    seq.num_in_step = 0;
    if (seq.state == SeqState::kFinished) {  // it ended while the step ran: its rows are dropped
      release(seq);
      continue;
    }
    if (out.failed) {
      finish(seq, FinishReason::kNumericalError, events);
      continue;
    }
    apply_prompt_logprobs(seq, out, output, events);
    seq.num_computed += out.num_tokens > 0 ? 0 : in_flight_[i].num_rows;
    if (out.num_tokens > 0) apply_tokens(seq, out, output, events);
    if (seq.state == SeqState::kFinished) continue;
    cache_computed(seq, /*with_tail=*/false);
    forget_passed_window(seq);
  }
  in_flight_.clear();
  take_events(events);
  sweep_finished();
}

// A sampled step leaves all but the newest token computed, however many drafts were accepted.
void Scheduler::apply_tokens(Sequence& seq, const SeqOutput& out, const ModelOutput& output,
                             EventBatch& events) {
  const SamplingParams& sampling = seq.params->sampling;
  const auto is_in = [](const std::vector<TokenId>& ids, TokenId id) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  for (int32_t t = 0; t < out.num_tokens; ++t) {
    const TokenOutput& token = output.tokens[out.tokens_begin + t];
    seq.num_computed = seq.num_known();
    seq.tokens.push_back(token.token);
    ++stats_.generation_tokens;
    TokenEvent event;
    event.request = seq.request;
    event.index = seq.index;
    event.token = token.token;
    event.num_output = seq.num_output();
    event.logprob = token.logprob;
    event.rank = token.rank;
    event.top_begin = static_cast<int32_t>(events.top.size());
    event.num_top = token.num_top;
    event.cached_tokens = seq.cached_tokens;
    event.first_scheduled = seq.first_scheduled;
    events.top.insert(events.top.end(), output.top.begin() + token.top_begin,
                      output.top.begin() + token.top_begin + token.num_top);

    const bool may_stop = seq.num_output() >= sampling.min_tokens;
    if (may_stop && ((!sampling.ignore_eos && is_in(sampling.eos_token_ids, token.token)) ||
                     is_in(sampling.stop_token_ids, token.token))) {
      event.finish = FinishReason::kStop;
    } else if (seq.num_output() >= sampling.max_tokens || seq.num_known() >= config_.max_model_len) {
      event.finish = FinishReason::kLength;
    }
    events.events.push_back(event);
    if (event.finish != FinishReason::kNone) {
      finish(seq, event.finish, events);
      return;
    }
  }
}

void Scheduler::apply_prompt_logprobs(Sequence& seq, const SeqOutput& out, const ModelOutput& output,
                                      EventBatch& events) {
  if (out.num_prompt == 0) return;
  EventBatch::PromptPart part;
  part.request = seq.request;
  part.first_position = output.seqs.empty() ? 0 : seq.num_computed + 1;
  if (seq.index != 0) return;  // the prompt is one; choice 0 reports it
  for (int32_t i = 0; i < out.num_prompt; ++i) {
    const TokenOutput& given = output.prompt_tokens[out.prompt_begin + i];
    PromptLogprob entry;
    entry.token = given.token;
    entry.logprob = given.logprob;
    entry.rank = given.rank;
    entry.top.assign(output.top.begin() + given.top_begin,
                     output.top.begin() + given.top_begin + given.num_top);
    part.logprobs.push_back(std::move(entry));
  }
  events.prompt_parts.push_back(std::move(part));
}

// --- memory and ends
// ----------------------------------------------------------------------------------------------------

// Puts whole computed blocks into the prefix cache, and the tail when the sequence is about to let go.
void Scheduler::cache_computed(Sequence& seq, bool with_tail) {
  const int32_t size = geometry_.block_size;
  const auto blocks_at = [&](int32_t index) {
    std::array<BlockRef, kMaxKvGroups> blocks;
    for (int g = 0; g < geometry_.num_groups; ++g) blocks[g] = seq.blocks[g][index];
    return blocks;
  };
  while (seq.node != RadixCache::kNone && (seq.num_cached_blocks + 1) * size <= seq.num_computed) {
    const std::span<const TokenId> tokens(seq.tokens.data() + seq.num_cached_blocks * size, size);
    const RadixCache::NodeId next = cache_.insert(seq.node, tokens, blocks_at(seq.num_cached_blocks));
    if (next != RadixCache::kNone) cache_.pin(next);
    cache_.unpin(seq.node);
    seq.node = next;  // kNone when the cache has no node left: this sequence is cached no further
    ++seq.num_cached_blocks;
  }
  const int32_t tail = seq.num_computed - seq.num_cached_blocks * size;
  if (with_tail && seq.node != RadixCache::kNone && tail > 0) {
    cache_.insert(seq.node, {seq.tokens.data() + seq.num_cached_blocks * size, static_cast<size_t>(tail)},
                  blocks_at(seq.num_cached_blocks));
  }
}

void Scheduler::forget_passed_window(Sequence& seq) {
  for (int g = 0; g < geometry_.num_groups; ++g) {
    const int32_t first = first_needed_block(geometry_.groups[g], seq.num_computed, geometry_.block_size);
    for (; seq.first_block[g] < first; ++seq.first_block[g]) seq.blocks[g][seq.first_block[g]] = BlockRef();
  }
}

// Lets go of slot and memory.
void Scheduler::release(Sequence& seq) {
  if (seq.node != RadixCache::kNone) cache_.unpin(seq.node);
  seq.node = RadixCache::kNone;
  seq.num_cached_blocks = 0;
  seq.num_computed = 0;
  for (int g = 0; g < geometry_.num_groups; ++g) {
    seq.blocks[g].clear();
    seq.first_block[g] = seq.num_told[g] = 0;
  }
  if (seq.slot >= 0) {
    free_slots_.push_back(seq.slot);
    freed_slots_.push_back(seq.slot);
    seq.slot = -1;
  }
}

void Scheduler::finish(Sequence& seq, FinishReason reason, EventBatch& events) {
  SERVAL_CHECK(seq.state != SeqState::kFinished, seq.id);
  const bool published = !events.events.empty() && events.events.back().request == seq.request &&
                         events.events.back().index == seq.index && events.events.back().finish == reason &&
                         events.events.back().token >= 0;
  if (!published) publish_finish(seq, reason, events);
  ++stats_.finished[static_cast<int>(reason)];
  std::vector<Sequence*>& line = seq.state == SeqState::kRunning ? running_ : waiting_;
  line.erase(std::find(line.begin(), line.end(), &seq));
  // Forks that still wait for this one compute their prompt themselves, with what the cache has of it.
  for (Sequence* other : requests_[seq.request]) {
    if (other->parent == &seq) other->parent = nullptr;
  }
  if (seq.state == SeqState::kRunning && reason != FinishReason::kNumericalError)
    cache_computed(seq, /*with_tail=*/true);
  seq.state = SeqState::kFinished;
  finished_.push_back(&seq);
  if (seq.num_in_step == 0) release(seq);
}

void Scheduler::publish_finish(const Sequence& seq, FinishReason reason, EventBatch& events) const {
  TokenEvent event;
  event.request = seq.request;
  event.index = seq.index;
  event.num_output = seq.num_output();
  event.cached_tokens = seq.cached_tokens;
  event.first_scheduled = seq.first_scheduled;
  event.finish = reason;
  events.events.push_back(event);
}

void Scheduler::take_events(EventBatch& events) {
  events.events.insert(events.events.end(), pending_.events.begin(), pending_.events.end());
  pending_.clear();
}

void Scheduler::sweep_finished() {
  std::erase_if(finished_, [&](Sequence* seq) {
    if (seq->num_in_step > 0) return false;
    std::vector<Sequence*>& members = requests_[seq->request];
    std::erase(members, seq);
    if (members.empty()) requests_.erase(seq->request);
    sequences_.erase(seq->id);
    return true;
  });
}

SchedulerStats Scheduler::stats() const {
  SchedulerStats stats = stats_;
  stats.num_running = static_cast<int32_t>(running_.size());
  stats.num_waiting = static_cast<int32_t>(waiting_.size());
  stats.num_blocks = pools_[0]->num_blocks();
  stats.num_free_blocks = pools_[0]->num_free();
  stats.num_cached_blocks = pools_[0]->num_cached_only();
  stats.num_evicted_blocks = cache_.num_evicted_blocks();
  return stats;
}

void Scheduler::check_invariants() const {
  cache_.check_invariants();
  for (int g = 0; g < geometry_.num_groups; ++g) {
    std::vector<int> refs(pools_[g]->num_blocks(), 0);
    cache_.for_each_block([&](BlockId id, int group) { refs[id] += group == g; });
    std::vector<int> cached = refs;
    for (const auto& [id, seq] : sequences_) {
      for (const BlockRef& block : seq->blocks[g]) {
        if (block) ++refs[block.id()];
      }
    }
    int free = 0, cached_only = 0;
    for (BlockId b = 0; b < pools_[g]->num_blocks(); ++b) {
      SERVAL_CHECK(refs[b] == pools_[g]->refs(b), g, b, refs[b], pools_[g]->refs(b));
      SERVAL_CHECK((cached[b] > 0) == pools_[g]->cached(b), g, b);
      free += refs[b] == 0;
      cached_only += refs[b] == 1 && cached[b] == 1;
    }
    SERVAL_CHECK(free == pools_[g]->num_free(), g, free, pools_[g]->num_free());
    SERVAL_CHECK(cached_only == pools_[g]->num_cached_only(), g, cached_only, pools_[g]->num_cached_only());
  }
  size_t slots = free_slots_.size();
  for (const auto& [id, seq] : sequences_) {
    slots += seq->slot >= 0;
    SERVAL_CHECK(seq->num_computed <= seq->num_known(), id, seq->num_computed, seq->num_known());
    if (seq->state == SeqState::kWaiting) {
      SERVAL_CHECK(seq->slot < 0 && seq->num_computed == 0 && seq->blocks[0].empty(), id, seq->slot,
                   seq->num_computed);
    }
    if (seq->state != SeqState::kRunning) continue;
    SERVAL_CHECK(seq->slot >= 0, id);
    const int32_t held = blocks_for(seq->num_computed + std::max(seq->num_in_step, 0), geometry_.block_size);
    for (int g = 0; g < geometry_.num_groups; ++g) {
      SERVAL_CHECK(static_cast<int32_t>(seq->blocks[g].size()) >= held, id, g, seq->blocks[g].size(), held);
    }
  }
  SERVAL_CHECK(slots == static_cast<size_t>(config_.max_num_seqs), slots, config_.max_num_seqs);
  for (size_t i = 1; i < running_.size(); ++i)
    SERVAL_CHECK(goes_before(config_.policy, *running_[i - 1], *running_[i]), i);
  for (size_t i = 1; i < waiting_.size(); ++i)
    SERVAL_CHECK(goes_before(config_.policy, *waiting_[i - 1], *waiting_[i]), i);
}

}  // namespace serval
