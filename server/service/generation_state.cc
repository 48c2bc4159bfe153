#include "server/service/generation_state.h"

#include <algorithm>
#include <utility>

#include "kernels/base/utf8.h"
#include "server/unique_id.h"

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

std::string call_id(const MessageFormat& format) {
  constexpr size_t kShortId = 9;
  return format.has_short_ids ? unique_id().substr(0, kShortId) : "call_" + unique_id();
}

// What a gathered token costs, about: its log-probabilities are the most of it.
size_t bytes_of(const TokenLogprob& entry) {
  return sizeof(TokenLogprob) * (1 + entry.top.size());
}

// How many characters of `text` each token is: what the text leaves out (a BOS in front) is none, and so is
// the space that some tokenizers put before it.
void measure_prompt(const Tokenizer& tokenizer, const std::string& text,
                    std::vector<PromptLogprobs::Entry>& entries) {
  std::string_view rest = text;
  for (PromptLogprobs::Entry& entry : entries) {
    std::string_view bytes = tokenizer.token_bytes(entry.token);
    if (!rest.starts_with(bytes)) {
      const bool space_in_front = rest.size() == text.size() && bytes.starts_with(' ');
      if (space_in_front && rest.starts_with(bytes.substr(1))) {
        bytes.remove_prefix(1);
      } else if (tokenizer.is_special(entry.token)) {
        bytes = {};
      }
    }
    entry.width = static_cast<int32_t>(num_characters(bytes));
    rest.remove_prefix(std::min(rest.size(), bytes.size()));
  }
}

}  // namespace

GenerationState::GenerationState(const Tokenizer& tokenizer, const DetokenizerOptions& detokenizer,
                                 Options options, std::shared_ptr<GenerationObserver> observer)
    : tokenizer_(tokenizer),
      options_(std::move(options)),
      observer_(std::move(observer)),
      charge_(options_.answers.get(), kFreeAnswerBytes) {
  const int num_choices = static_cast<int>(options_.prompts.size()) * options_.n;
  choices_.reserve(num_choices);
  for (int i = 0; i < num_choices; ++i) {
    choices_.push_back(Choice{Detokenizer(tokenizer_, detokenizer)});
    if (const AnswerReading* const reading = options_.reading.get()) {
      choices_.back().parser.emplace(reading->rules);
      choices_.back().reasons = !reading->rules.opened_reasoning.empty() && reading->begun.empty();
      choices_.back().parser->push(reading->begun, choices_.back().pending.parts);
    }
    choices_.back().pending.index = i;
  }
  usage_.prompt_tokens = options_.prompt_tokens;
  begin_prompt_logprobs();
  for (PromptInfo& prompt : options_.prompts) {
    if (!options_.echo) std::string().swap(prompt.text);
    if (!options_.keep_prompt_ids) std::vector<TokenId>().swap(prompt.token_ids);
  }
  open_choices_ = num_choices;
}

// The tokens are known; what the model thinks of them comes in parts.
void GenerationState::begin_prompt_logprobs() {
  if (options_.num_prompt_logprobs < 0) return;
  for (const PromptInfo& prompt : options_.prompts) {
    auto list = std::make_shared<PromptLogprobs>();
    list->entries.resize(prompt.token_ids.size());
    for (size_t i = 0; i < prompt.token_ids.size(); ++i) list->entries[i].token = prompt.token_ids[i];
    if (options_.echo) measure_prompt(tokenizer_, prompt.text, list->entries);
    held_bytes_ += prompt.token_ids.size() *
                   (sizeof(PromptLogprobs::Entry) + options_.num_prompt_logprobs * sizeof(TopLogprob));
    prompt_logprobs_.push_back(std::move(list));
  }
}

bool GenerationState::hold_prompt_logprobs() {
  return charge_.fits(held_bytes_);
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

void GenerationState::deliver_prompt_logprobs(int prompt_index, const EventBatch::PromptPart& part,
                                              const EventBatch& batch) {
  PromptLogprobs& list = *prompt_logprobs_[prompt_index];
  const size_t first = static_cast<size_t>(part.first_position);
  SERVAL_DCHECK(first + part.count <= list.entries.size(), first, list.entries.size());
  list.top.reserve(list.entries.size() * options_.num_prompt_logprobs);
  for (int32_t i = 0; i < part.count; ++i) {
    const PromptLogprob& given = batch.prompt_logprobs[part.begin + i];
    PromptLogprobs::Entry& entry = list.entries[first + i];
    SERVAL_DCHECK(entry.token == given.token, entry.token, given.token);
    entry.logprob = given.logprob;
    entry.rank = given.rank;
    const auto top = batch.top.begin() + given.top_begin;
    list.top.insert(list.top.end(), top, top + given.num_top);
    entry.top_end = static_cast<int32_t>(list.top.size());
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
  choice.drafts = event.drafts;
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
    if (options_.pool) {
      const auto begin = batch.pooled.begin() + event.pooled_begin;
      choice.pending.numbers = options_.head->numbers(*options_.pool, {begin, begin + event.num_pooled});
    }
    if (options_.whole && !hold(choice)) {
      observer_->on_error({ErrorKind::kOverloaded, "server_overloaded",
                           "The server holds as many answers as it can; try again shortly.", "", 1});
      ended_ = outcome.finished = outcome.failed = true;
      return outcome;
    }
  }
  finish_choice(choice, event, outcome);
  return outcome;
}

// Counts what was gathered of a choice. False: there is no room for it.
bool GenerationState::hold(Choice& choice) {
  const Delta& delta = choice.pending;
  size_t bytes = delta.text.size() + delta.token_ids.size() * sizeof(TokenId) + delta.numbers.size() * sizeof(float);
  for (const MessagePart& part : delta.parts) bytes += sizeof(MessagePart) + part.text.size();
  if (!delta.logprobs.empty()) bytes += delta.logprobs.size() * bytes_of(delta.logprobs.back());
  held_bytes_ += bytes - choice.held_bytes;
  choice.held_bytes = bytes;
  return charge_.fits(held_bytes_);
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
  const bool ends = event.finish == FinishReason::kStop && (is_eos(event.token) || !options_.include_stop);
  const bool is_text = !ends && !(options_.skip_special && tokenizer_.is_special(event.token));
  if (!is_text && !delta.logprobs.empty()) delta.logprobs.back().width = 0;
  if (!ends) choice.detokenizer.push(event.token, delta.text);
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
  if (choice.parser) read_parts(choice, is_answer(finish), event.token >= 0 ? 1 : 0);
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
      if (options_.has_prediction) {
        const DraftCounts drafts = count_drafts();
        usage_.accepted_prediction_tokens = drafts.predictions_accepted;
        usage_.rejected_prediction_tokens = drafts.predicted - drafts.predictions_accepted;
      }
      observer_->on_done(usage_);
      ended_ = outcome.finished = true;
    }
  } else if (!(delta.text.empty() && delta.parts.empty()) && !options_.whole) {
    emit(choice);
  }
}

// The pending text becomes parts. A token is reasoning while nothing else came.
void GenerationState::read_parts(Choice& choice, bool is_end, int num_tokens) {
  Delta& delta = choice.pending;
  const size_t first = delta.parts.size();
  choice.parser->push(std::exchange(delta.text, {}), delta.parts);
  if (is_end) choice.parser->finish(delta.parts);
  for (size_t i = first; i < delta.parts.size(); ++i) {
    MessagePart& part = delta.parts[i];
    choice.reasons = part.kind == PartKind::kReasoning;
    if (part.kind == PartKind::kCall && part.id.empty()) part.id = call_id(*options_.reading->rules.format);
  }
  if (choice.reasons) usage_.reasoning_tokens += num_tokens;
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

// Of all choices.
DraftCounts GenerationState::count_drafts() const {
  DraftCounts all;
  for (const Choice& choice : choices_) {
    all.drafted += choice.drafts.drafted;
    all.accepted += choice.drafts.accepted;
    all.predicted += choice.drafts.predicted;
    all.predictions_accepted += choice.drafts.predictions_accepted;
  }
  return all;
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
  const DraftCounts drafts = count_drafts();
  record.drafted = drafts.drafted;
  record.accepted = drafts.accepted;
  if (first_scheduled_ != Time{0}) record.queue_s = seconds(first_scheduled_ - options_.received);
  if (first_token_ != Time{0}) record.first_s = seconds(first_token_ - options_.received);
  record.total_s = seconds(now - options_.received);
  return record;
}

}  // namespace serval
