// What a step gave: computed tokens advance, new tokens become known, and some sequences end.
#include <algorithm>

#include "engine/scheduler/scheduler_impl.h"
#include "kernels/base/check.h"

namespace serval {

void Scheduler::Impl::apply(const ModelOutput& output, EventBatch& events) {
  SERVAL_CHECK(output.step == step && output.seqs.size() == in_flight.size(), output.step, step,
               output.seqs.size(), in_flight.size());
  for (size_t i = 0; i < in_flight.size(); ++i) {
    Sequence& seq = *in_flight[i].seq;
    SERVAL_CHECK(output.seqs[i].seq == seq.id, i, output.seqs[i].seq, seq.id);
    seq.in_flight = false;
    memory.end_copy(slots[seq.slot]);
  }
  for (size_t i = 0; i < in_flight.size(); ++i) {
    Sequence& seq = *in_flight[i].seq;
    if (seq.state == SequenceState::kFinished) {  // it ended while the step ran: nobody wants these rows
      leave_slot(seq, true);
      give_back(seq);
      continue;
    }
    apply_rows(in_flight[i], output.seqs[i], output, events);
  }
  in_flight.clear();
}

void Scheduler::Impl::apply_rows(const InFlight& item, const SeqOutput& out, const ModelOutput& output,
                                 EventBatch& events) {
  Sequence& seq = *item.seq;
  totals.prompt_tokens_computed += std::clamp(seq.num_prompt - item.first_pos, 0, item.num_rows);
  if (out.failed) {
    publish_finish(seq, FinishReason::kNumericalError, seq.num_output(), events);
    end(seq, FinishReason::kNumericalError, false);
    return;
  }
  if (item.prompt_logprobs) publish_prompt_logprobs(item, out, output, events);
  // A step that samples gives a token after its last sure row and one after each draft that was right; these
  // drafts' rows count.
  const int num_right = std::max(0, out.num_tokens - 1);
  SERVAL_CHECK(num_right <= item.num_drafts, out.num_tokens, item.num_drafts);
  const bool samples = item.first_pos + item.num_rows - item.num_drafts == seq.num_known();
  SERVAL_CHECK(samples == (out.num_tokens > 0), samples, out.num_tokens);
  seq.num_computed = item.first_pos + item.num_rows - item.num_drafts + num_right;
  const FinishReason reason = samples ? take_tokens(seq, out, output, events) : FinishReason::kNone;
  if (reason != FinishReason::kNone) {
    seq.num_computed = std::min(seq.num_computed, seq.num_known());  // rows of drafts behind the end
    end(seq, reason, true);
    return;
  }
  memory.advance(slots[seq.slot], seq.tokens, seq.num_computed);
  if (seq.num_computed >= seq.num_prompt - 1) unpark(*seq.request, seq.request->num_live);
}

// Takes the drawn tokens up to the first that ends the sequence.
FinishReason Scheduler::Impl::take_tokens(Sequence& seq, const SeqOutput& out, const ModelOutput& output,
                                          EventBatch& events) {
  if (seq.request->request.sampling.max_tokens == 0) {  // only the prompt was wanted
    publish_finish(seq, FinishReason::kLength, 0, events);
    return FinishReason::kLength;
  }
  FinishReason reason = FinishReason::kNone;
  for (int i = 0; i < out.num_tokens && reason == FinishReason::kNone; ++i) {
    const TokenOutput& token = output.tokens[out.tokens_begin + i];
    seq.tokens.push_back(token.token);
    ++totals.generation_tokens;
    reason = stop_reason(seq);
    events.events.push_back({.request = seq.request->request.id,
                             .index = seq.index,
                             .token = token.token,
                             .num_output = seq.num_output(),
                             .logprob = token.logprob,
                             .rank = token.rank,
                             .top_begin = static_cast<int32_t>(events.top.size()),
                             .num_top = token.num_top,
                             .first_scheduled = seq.first_scheduled,
                             .cached_tokens = seq.cached_tokens,
                             .finish = reason});
    const auto top = output.top.begin() + token.top_begin;
    events.top.insert(events.top.end(), top, top + token.num_top);
  }
  return reason;
}

// Does the newest token end the sequence? The sampler bans end ids while fewer than min_tokens are out, and
// so does this.
FinishReason Scheduler::Impl::stop_reason(const Sequence& seq) const {
  const SamplingParams& sampling = seq.request->request.sampling;
  const TokenId token = seq.tokens.back();
  if (seq.num_output() > sampling.min_tokens) {
    const auto ends_on = [&](const std::vector<TokenId>& ids) {
      return std::ranges::find(ids, token) != ids.end();
    };
    if (ends_on(sampling.stop_token_ids)) return FinishReason::kStop;
    if (!sampling.ignore_eos && ends_on(sampling.eos_token_ids)) return FinishReason::kStop;
  }
  const bool is_full = seq.num_output() >= sampling.max_tokens || seq.num_known() >= config.max_model_len;
  return is_full ? FinishReason::kLength : FinishReason::kNone;
}

// Each position once: rows that are computed again after a preemption are not reported again.
void Scheduler::Impl::publish_prompt_logprobs(const InFlight& item, const SeqOutput& out,
                                              const ModelOutput& output, EventBatch& events) {
  Sequence& seq = *item.seq;
  const int num_known_already = std::max(0, seq.num_prompt_logprobs - item.first_pos);
  SERVAL_CHECK(out.num_prompt > num_known_already, out.num_prompt, num_known_already);
  EventBatch::PromptPart part;
  part.request = seq.request->request.id;
  part.first_position = item.first_pos + 1 + num_known_already;
  for (int i = num_known_already; i < out.num_prompt; ++i) {
    const TokenOutput& token = output.prompt_tokens[out.prompt_begin + i];
    const auto top = output.top.begin() + token.top_begin;
    part.logprobs.push_back({token.token, token.logprob, token.rank, {top, top + token.num_top}});
  }
  seq.num_prompt_logprobs = item.first_pos + out.num_prompt;
  events.prompt_parts.push_back(std::move(part));
}

}  // namespace serval
