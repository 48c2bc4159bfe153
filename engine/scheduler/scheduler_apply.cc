// Scheduler::apply: a step's result taken in, and what becomes of memory when sequences go on or end.
#include "engine/scheduler/scheduler.h"

#include <algorithm>

namespace serval {

void Scheduler::apply(const ModelOutput& output, Time now, EventBatch& events) {
  SERVAL_CHECK(num_in_flight_ > 0);
  const Step& step = steps_[0];
  SERVAL_CHECK(output.step == step.number && output.seqs.size() == step.rows.size(), output.step, step.number,
               output.seqs.size(), step.rows.size());
  learn_cost(step, now);
  for (size_t i = 0; i < step.rows.size(); ++i) {
    const Rows& rows = step.rows[i];
    Sequence& seq = *rows.seq;
    const SeqOutput& out = output.seqs[i];
    SERVAL_CHECK(out.seq == seq.id, out.seq, seq.id);
    --seq.num_in_flight;
    seq.num_rows_ahead -= rows.count;
    if (seq.state == SeqState::kFinished) {  // it ended before the step was over: its rows are dropped
      if (seq.num_in_flight == 0) release(seq);
      continue;
    }
    if (out.failed) {
      finish(seq, FinishReason::kNumericalError, events);
      continue;
    }
    const bool had_prompt = seq.num_computed >= seq.num_prompt() - 1;
    SERVAL_CHECK((out.num_tokens > 0) == rows.sample && out.num_tokens <= 1 + rows.num_drafts, seq.id,
                 out.num_tokens, rows.sample, rows.num_drafts);
    apply_prompt_logprobs(seq, out, output, events);
    if (rows.sample) {
      if (rows.num_drafts > 0) count_drafts(seq, rows.num_drafts, out, output);
      apply_tokens(seq, out, output, events);
    } else {
      seq.num_computed += rows.count;
    }
    if (seq.state == SeqState::kFinished) continue;
    if (rows.num_drafts > 0) kv_.give_back(seq.kv, seq.num_known() - 1);
    if (!had_prompt && seq.num_computed >= seq.num_prompt() - 1) start_forks(seq);
    kv_.computed(seq.kv, seq.tokens, seq.num_computed, seq.num_prompt());
  }
  std::rotate(steps_.begin(), steps_.begin() + 1, steps_.end());
  --num_in_flight_;
  take_events(events);
  sweep_finished();
}

void Scheduler::take_guesses(const ModelOutput& output) {
  const Step& step = steps_.back();
  SERVAL_CHECK(output.step == step.number && output.seqs.size() == step.rows.size(), output.step, step.number, output.seqs.size(),
               step.rows.size());
  for (size_t i = 0; i < step.rows.size(); ++i) {
    Sequence& seq = *step.rows[i].seq;
    if (!step.rows[i].sample || seq.state == SeqState::kFinished) continue;
    take_drafts(seq, output.seqs[i], output);
    tell_constraint(seq, output.seqs[i].num_tokens);
  }
}

// A step that was launched ahead began when the one before it was over.
void Scheduler::learn_cost(const Step& step, Time now) {
  int rows = 0;
  for (const Rows& of : step.rows) rows += of.count;
  cost_.learn(rows, std::chrono::duration<double, std::milli>(now - std::max(step.planned_at, last_over_)).count());
  last_over_ = now;
}

// Whose guesses the step verified, and which came true.
void Scheduler::count_drafts(Sequence& seq, int32_t num_drafts, const SeqOutput& out, const ModelOutput& output) {
  ++stats_.num_drafts;
  stats_.num_draft_tokens += num_drafts;
  stats_.num_accepted_tokens += out.num_tokens - 1;
  std::array<int32_t, kMaxDrafts> depth;
  int32_t last = -1, num_accepted = 0;  // of the branch that came true
  for (int32_t i = 0; i < num_drafts; ++i) {
    const Draft& draft = seq.drafts[i];
    depth[i] = draft.parent < 0 ? 0 : depth[draft.parent] + 1;
    const bool is_accepted = draft.parent == last && num_accepted < out.num_tokens - 1 &&
                             draft.token == output.tokens[out.tokens_begin + num_accepted].token;
    if (is_accepted) {
      last = i;
      ++num_accepted;
    }
    DrafterStats& of = stats_.drafters[static_cast<int>(draft.by)];
    const int place = std::min(depth[i], DrafterStats::kPlaces - 1);
    ++of.drafted[place];
    of.accepted[place] += is_accepted;
    ++seq.draft_counts.drafted;
    seq.draft_counts.accepted += is_accepted;
    if (draft.by != DrafterKind::kPrediction) continue;
    ++seq.draft_counts.predicted;
    seq.draft_counts.predictions_accepted += is_accepted;
  }
}

// The prompt is computed, but for its last token: forks that waited for it can be admitted.
void Scheduler::start_forks(Sequence& seq) {
  for (Sequence& fork : seq.of->sequences) {
    if (fork.parent == &seq && !fork.is_in_line) flows_.wait(fork);
  }
}

// A sampled step leaves all but the newest token computed, however many drafts were accepted; but where there is a state it
// stands where they began.
void Scheduler::apply_tokens(Sequence& seq, const SeqOutput& out, const ModelOutput& output,
                             EventBatch& events) {
  const SamplingParams& sampling = seq.request().sampling;
  const auto is_in = [](const std::vector<TokenId>& ids, TokenId id) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  for (int32_t t = 0; t < out.num_tokens; ++t) {
    const TokenOutput& token = output.tokens[out.tokens_begin + t];
    if (t == 0 || !keeps_state()) seq.num_computed = seq.num_known();
    seq.num_to_replay = seq.num_known() - seq.num_computed;
    seq.take(token.token);
    ++stats_.generation_tokens;
    TokenEvent event;
    event.request = seq.request().id;
    event.index = seq.index;
    event.token = token.token;
    event.num_output = seq.num_output();
    event.logprob = token.logprob;
    event.rank = token.rank;
    event.top_begin = static_cast<int32_t>(events.top.size());
    event.num_top = token.num_top;
    event.cached_tokens = seq.cached_tokens;
    event.first_scheduled = seq.first_scheduled;
    event.drafts = seq.draft_counts;
    events.top.insert(events.top.end(), output.top.begin() + token.top_begin,
                      output.top.begin() + token.top_begin + token.num_top);
    event.pooled_begin = static_cast<int32_t>(events.pooled.size());
    event.num_pooled = out.num_pooled;
    const auto pooled = output.pooled.begin() + out.pooled_begin;
    events.pooled.insert(events.pooled.end(), pooled, pooled + out.num_pooled);

    const bool may_stop = seq.num_output() >= sampling.min_tokens;
    if (may_stop && ((!sampling.ignore_eos && is_in(sampling.eos_token_ids, token.token)) ||
                     is_in(sampling.stop_token_ids, token.token))) {
      event.finish = FinishReason::kStop;
    } else if (seq.num_known() >= seq.max_len) {
      event.finish = FinishReason::kLength;
    }
    events.events.push_back(event);
    if (event.finish != FinishReason::kNone) {
      end(seq, event.finish);
      return;
    }
  }
}

// Decides nothing here: whoever makes the masks hears of it first, of the guesses too.
void Scheduler::tell_constraint(const Sequence& seq, int32_t num_drawn) {
  if (!seq.request().constraint) return;
  const std::span<const TokenId> known(seq.tokens.data(), static_cast<size_t>(seq.num_known()));
  seq.request().constraint->drew(seq.index, known.last(num_drawn), seq.num_output() - num_drawn, seq.drafts);
}

// What the step proposes goes on from its last token. While another step draws the one behind, that is still to
// be confirmed. A state has one place: of a tree the first branch goes on from it.
void Scheduler::take_drafts(Sequence& seq, const SeqOutput& out, const ModelOutput& output) {
  if (out.num_drafts == 0) return;
  SERVAL_CHECK(out.num_drafts <= config_.num_draft_tokens, seq.id, out.num_drafts);
  for (int32_t i = 0; i < out.num_drafts; ++i) {
    const int32_t parent = output.drafts[out.drafts_begin + i].parent;
    SERVAL_CHECK(parent >= -1 && parent < i, seq.id, i, parent);
  }
  seq.drafts.assign(output.drafts.begin() + out.drafts_begin,
                    output.drafts.begin() + out.drafts_begin + out.num_drafts);
  if (keeps_state()) keep_first_branch(seq.drafts);
}

void Scheduler::apply_prompt_logprobs(Sequence& seq, const SeqOutput& out, const ModelOutput& output,
                                      EventBatch& events) {
  if (seq.index != 0) return;
  // A preempted prompt is computed again: what was reported is not reported twice.
  const int32_t first_position = seq.num_computed + 1;
  const int32_t first = std::max(0, seq.num_prompt_reported + 1 - first_position);
  if (first >= out.num_prompt) return;
  EventBatch::PromptPart part;
  part.request = seq.request().id;
  part.first_position = first_position + first;
  part.begin = static_cast<int32_t>(events.prompt_logprobs.size());
  part.count = out.num_prompt - first;
  for (int32_t i = first; i < out.num_prompt; ++i) {
    const TokenOutput& given = output.prompt_tokens[out.prompt_begin + i];
    events.prompt_logprobs.push_back(
        {given.token, given.logprob, given.rank, static_cast<int32_t>(events.top.size()), given.num_top});
    events.top.insert(events.top.end(), output.top.begin() + given.top_begin,
                      output.top.begin() + given.top_begin + given.num_top);
  }
  events.prompt_parts.push_back(part);
  seq.num_prompt_reported = first_position + out.num_prompt - 1;
}

// Lets go of slot and memory.
void Scheduler::release(Sequence& seq) {
  SERVAL_CHECK(seq.num_in_flight == 0, seq.id, seq.num_in_flight);
  seq.drafts.clear();
  kv_.release(seq.kv);
  seq.num_computed = 0;
  seq.num_to_replay = 0;
  if (seq.slot >= 0) {
    free_slots_.push_back(seq.slot);
    freed_slots_.push_back(seq.slot);
    seq.slot = -1;
  }
}

// An end that no token's event carries.
void Scheduler::finish(Sequence& seq, FinishReason reason, EventBatch& events) {
  TokenEvent event;
  event.request = seq.request().id;
  event.index = seq.index;
  event.num_output = seq.num_output();
  event.cached_tokens = seq.cached_tokens;
  event.first_scheduled = seq.first_scheduled;
  event.drafts = seq.draft_counts;
  event.finish = reason;
  events.events.push_back(event);
  end(seq, reason);
}

void Scheduler::end(Sequence& seq, FinishReason reason) {
  SERVAL_CHECK(seq.state != SeqState::kFinished, seq.id);
  ++stats_.finished[static_cast<int>(reason)];
  if (seq.state == SeqState::kRunning) {
    running_.erase(std::find(running_.begin(), running_.end(), &seq));
  } else {
    leave_line(seq);
    seq.parent = nullptr;
  }
  // Forks that still wait for this one compute their prompt themselves, with what the cache has of it.
  for (Sequence& fork : seq.of->sequences) {
    if (fork.parent != &seq) continue;
    if (fork.is_in_line) flows_.stop_waiting(fork);
    fork.parent = nullptr;
    flows_.wait(fork);
  }
  if (reason == FinishReason::kStop || reason == FinishReason::kStopString || reason == FinishReason::kLength)
    learn_output(seq.num_output());
  if (seq.state == SeqState::kRunning && reason != FinishReason::kNumericalError)
    kv_.computed_last(seq.kv, seq.tokens, seq.num_computed, seq.num_prompt());
  flows_.leave(seq);
  seq.state = SeqState::kFinished;
  finished_.push_back(&seq);
  if (seq.num_in_flight == 0) release(seq);
}

void Scheduler::take_events(EventBatch& events) {
  events.events.insert(events.events.end(), pending_.events.begin(), pending_.events.end());
  pending_.clear();
}

// Takes leave of finished sequences that no step holds, and of requests when their last one goes.
void Scheduler::sweep_finished() {
  std::erase_if(finished_, [&](const Sequence* seq) {
    if (seq->num_in_flight > 0) return false;
    RequestState& request_state = *seq->of;
    if (++request_state.num_gone < static_cast<int32_t>(request_state.sequences.size())) return true;
    kv_.release_root(request_state.root);
    if (deadlines_.contains(request_state)) deadlines_.erase(request_state);
    retired_.push_back(requests_.remove(request_state));
    return true;
  });
}

}  // namespace serval
