#include "server/generation_state.h"

#include <algorithm>

namespace serval {
namespace {

double seconds(Time time) {
  return std::chrono::duration<double>(time).count();
}

Error finish_error(FinishReason reason) {
  switch (reason) {
    case FinishReason::kDeadline:
      return {ErrorKind::kDeadlineExceeded, "deadline_exceeded",
              "The request's deadline passed before it was finished.", ""};
    case FinishReason::kNumericalError:
      return {ErrorKind::kInternal, "numerical_error", "The model's output for this request was not finite.",
              ""};
    default:
      return {ErrorKind::kUnavailable, "aborted", "The server ended this request before it was finished.", "",
              1};
  }
}

bool is_answer(FinishReason reason) {
  return reason == FinishReason::kStop || reason == FinishReason::kStopString ||
         reason == FinishReason::kLength;
}

}  // namespace

GenerationState::GenerationState(const Tokenizer& tokenizer, const DetokenizerOptions& detokenizer,
                                 Options options, std::shared_ptr<GenerationObserver> observer)
    : tokenizer_(tokenizer), options_(std::move(options)), observer_(std::move(observer)) {
  const int num_choices = static_cast<int>(options_.prompts.size()) * options_.n;
  choices_.reserve(num_choices);
  for (int i = 0; i < num_choices; ++i) {
    choices_.push_back(Choice{Detokenizer(tokenizer_, detokenizer), Delta{}});
    choices_.back().pending.index = i;
  }
  prompt_logprobs_.resize(options_.prompts.size());
  for (size_t p = 0; p < options_.prompts.size(); ++p) {
    const PromptInfo& prompt = options_.prompts[p];
    usage_.prompt_tokens += static_cast<int64_t>(prompt.token_ids.size());
    // Entry 0 has no log-probability: nothing comes before it.
    if (options_.num_prompt_logprobs >= 0) prompt_logprobs_[p].push_back(named(prompt.token_ids[0], 0, 0));
  }
  open_choices_ = num_choices;
}

TokenLogprob GenerationState::named(TokenId token, float logprob, int rank) const {
  TokenLogprob result;
  result.token = token;
  result.bytes = std::string(tokenizer_.token_bytes(token));
  result.logprob = logprob;
  result.rank = rank;
  return result;
}

bool GenerationState::is_eos(TokenId token) const {
  const std::vector<TokenId>& ids = options_.eos_token_ids;
  return std::find(ids.begin(), ids.end(), token) != ids.end();
}

void GenerationState::deliver_prompt_logprobs(int prompt_index, const EventBatch::PromptPart& part) {
  std::vector<TokenLogprob>& known = prompt_logprobs_[prompt_index];
  SERVAL_DCHECK(static_cast<size_t>(part.first_position) == known.size(), part.first_position, known.size());
  for (const PromptLogprob& given : part.logprobs) {
    TokenLogprob entry = named(given.token, given.logprob, given.rank);
    for (const TopLogprob& top : given.top) {
      entry.top.push_back(named(top.token, top.logprob, static_cast<int>(entry.top.size()) + 1));
    }
    known.push_back(std::move(entry));
  }
}

GenerationState::Outcome GenerationState::deliver(int prompt_index, const TokenEvent& event,
                                                  const EventBatch& batch, Time now,
                                                  ServiceMetrics& metrics) {
  Outcome outcome;
  std::lock_guard lock(mutex_);
  Choice& choice = choices_[prompt_index * options_.n + event.index];
  if (ended_ || choice.done) return outcome;
  if (event.index == 0 && event.num_output <= 1) {
    usage_.cached_tokens += event.cached_tokens;
    if (first_scheduled_ == Time{0}) first_scheduled_ = event.first_scheduled;
  }
  if (event.token >= 0) {
    ++usage_.completion_tokens;
    if (first_token_ == Time{0}) {
      first_token_ = now;
      metrics.first_token(seconds(now - options_.received));
    } else if (choice.last_token != Time{0}) {
      metrics.inter_token(seconds(now - choice.last_token));
    }
    choice.last_token = now;
    add_token(choice, event, batch);
  }
  finish_choice(choice, event, outcome);
  return outcome;
}

void GenerationState::add_token(Choice& choice, const TokenEvent& event, const EventBatch& batch) {
  if (options_.drop_output) return;
  Delta& delta = choice.pending;
  delta.token_ids.push_back(event.token);
  if (options_.num_logprobs >= 0) {
    TokenLogprob entry = named(event.token, event.logprob, event.rank);
    for (int i = 0; i < event.num_top; ++i) {
      const TopLogprob& top = batch.top[event.top_begin + i];
      entry.top.push_back(named(top.token, top.logprob, i + 1));
    }
    delta.logprobs.push_back(std::move(entry));
  }
  // The id that ended the sequence is reported, but it is not text unless a stop id's text was asked for.
  if (event.finish == FinishReason::kStop && (is_eos(event.token) || !options_.include_stop)) return;
  choice.detokenizer.push(event.token, delta.text);
}

void GenerationState::finish_choice(Choice& choice, const TokenEvent& event, Outcome& outcome) {
  Delta& delta = choice.pending;
  FinishReason finish = event.finish;
  // What was held back for characters to come may be a stop string after all.
  if (is_answer(finish)) choice.detokenizer.finish(delta.text);
  if (choice.detokenizer.stopped()) {
    outcome.stop_sequence = finish == FinishReason::kNone;
    finish = FinishReason::kStopString;
    delta.stop_reason = choice.detokenizer.matched_stop();
  }
  if (finish != FinishReason::kNone) last_finish_ = finish;
  if (finish != FinishReason::kNone && !is_answer(finish)) {
    observer_->on_error(finish_error(finish));
    ended_ = outcome.finished = outcome.failed = true;
    return;
  }
  if (finish != FinishReason::kNone) {
    if (finish == FinishReason::kStop && !is_eos(event.token)) delta.stop_reason = event.token;
    delta.finish = finish;
    choice.done = true;
    emit(choice);
    if (--open_choices_ == 0) {
      if (options_.drop_output) usage_.completion_tokens = 0;
      observer_->on_done(usage_);
      ended_ = outcome.finished = true;
    }
  } else if (!delta.text.empty()) {
    emit(choice);
  }
}

void GenerationState::emit(Choice& choice) {
  const int index = choice.pending.index;
  // Every choice of a prompt carries the prompt's log-probabilities in its first piece.
  if (options_.num_prompt_logprobs >= 0 && !choice.sent_prompt) {
    choice.pending.prompt_logprobs = prompt_logprobs_[index / options_.n];
    choice.sent_prompt = true;
  }
  observer_->on_delta(std::move(choice.pending));
  choice.pending = Delta{};
  choice.pending.index = index;
}

void GenerationState::fail(const Error& error) {
  std::lock_guard lock(mutex_);
  if (ended_) return;
  observer_->on_error(error);
  ended_ = true;
}

bool GenerationState::cancel() {
  std::lock_guard lock(mutex_);
  const bool was_open = !ended_;
  ended_ = true;
  return was_open;
}

RequestRecord GenerationState::record(Time now) const {
  std::lock_guard lock(mutex_);
  RequestRecord record;
  record.finish = last_finish_;
  record.prompt_tokens = static_cast<int>(usage_.prompt_tokens);
  record.output_tokens = static_cast<int>(usage_.completion_tokens);
  record.max_tokens = options_.max_tokens;
  record.n = options_.n;
  if (first_scheduled_ != Time{0}) record.queue_s = seconds(first_scheduled_ - options_.received);
  if (first_token_ != Time{0}) record.first_s = seconds(first_token_ - options_.received);
  record.total_s = seconds(now - options_.received);
  return record;
}

}  // namespace serval
