#include "engine/scheduler/scheduler.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "engine/scheduler/queue_policy.h"

namespace serval {
namespace {

// Room for so many of a request's own ids and biases is there from the start; a longer list keeps its size.
constexpr size_t kUsualList = 16;

// Sequences that wait or run.
int max_open(const SchedulerConfig& config) {
  return config.max_num_seqs + config.max_waiting;
}

// Tokens a sequence may have in the end. A prompt may fill the context, to be scored: then one more is drawn,
// whose KV nobody needs.
int32_t max_len_of(const SchedulerConfig& config, int32_t prompt_tokens, int32_t max_tokens) {
  return std::max(std::min(prompt_tokens + max_tokens, config.max_model_len), prompt_tokens + 1);
}

}  // namespace

bool fits(const BlockGeometry& geometry, const SchedulerConfig& config, int prompt_tokens, int max_tokens) {
  // The last token is drawn, but its KV is never needed.
  return geometry.fits(max_len_of(config, prompt_tokens, max_tokens) - 1);
}

Scheduler::Scheduler(const SchedulerConfig& config, const BlockGeometry& geometry)
    : config_(config),
      kv_(geometry, config.enable_prefix_cache, max_open(config)),
      requests_(max_open(config) +
                config.max_num_seqs),  // those whose end waits for a step are no longer open
      flows_(config.policy, max_open(config), kTurnSteps * config.max_num_batched_tokens,
             config.max_num_batched_tokens / kShortShare,
             config.max_wait_ms > 0 && config.policy == QueuePolicy::kFcfs),
      deadlines_(max_open(config) + config.max_num_seqs) {
  SERVAL_CHECK(config.max_num_batched_tokens >= config.max_num_seqs, config.max_num_batched_tokens,
               config.max_num_seqs);
  SERVAL_CHECK(config.num_draft_tokens >= 0 && config.num_draft_tokens <= kMaxDrafts, config.num_draft_tokens);
  for (SlotId slot = config.max_num_seqs - 1; slot >= 0; --slot) free_slots_.push_back(slot);
  const size_t most = max_open(config);
  retired_.reserve(most + config.max_num_seqs);
  running_.reserve(config.max_num_seqs);
  preempted_.reserve(most);
  order_.reserve(config.max_num_seqs);
  granted_.reserve(config.max_num_seqs);
  growths_.reserve(config.max_num_seqs + 1);
  for (Step& step : steps_) step.rows.reserve(config.max_num_seqs);
  freed_slots_.reserve(config.max_num_seqs);
  finished_.reserve(most + config.max_num_seqs);
  pending_.events.reserve(most);
}

size_t Scheduler::planned_bytes(const SchedulerConfig& config, const BlockGeometry& geometry) {
  const size_t open = max_open(config), running = config.max_num_seqs;
  const size_t lines = (6 * running + 4 * open) * sizeof(void*) + 2 * running * sizeof(SlotId) +
                       (running + 1) * sizeof(Growth) + (kMaxStepsInFlight * running) * sizeof(Rows) +
                       open * sizeof(TokenEvent);
  const size_t texts = config.num_draft_tokens > 0 ? 2 : 1;  // the tokens, a prediction
  const size_t of_admission =
      sizeof(Admission) + texts * config.max_model_len * sizeof(TokenId) + 2 * kUsualList * sizeof(TokenId) +
      kUsualList * sizeof(decltype(SamplingParams::logit_bias)::value_type);
  const size_t of_sequence = sizeof(SeqStep) + of_admission + sizeof(SlotId) +
                             geometry.num_groups * (geometry.table_entries(config.max_model_len) * sizeof(BlockId) +
                                                    sizeof(GroupBlockCopy));
  const size_t batch = running * of_sequence + config.max_num_batched_tokens * sizeof(TokenId) +
                       max_drafts_of_step(config) * sizeof(int32_t) +
                       (running + max_drafts_of_step(config)) * config.mask_words * sizeof(uint32_t);
  return KvManager::planned_bytes(geometry, max_open(config)) + Flows::planned_bytes(max_open(config)) +
         OpenRequests::planned_bytes(open + running) + lines + kMaxStepsInFlight * batch;
}

Scheduler::~Scheduler() = default;

std::unique_ptr<RequestState> Scheduler::prepare(Request request) const {
  SERVAL_CHECK(!request.prompt.empty() && request.n > 0, request.id);
  auto request_state = std::make_unique<RequestState>();
  request_state->num_prompt = static_cast<int32_t>(request.prompt.size());
  SERVAL_CHECK(request_state->num_prompt <= config_.max_model_len, request.id, request_state->num_prompt);
  const int32_t max_len = max_len_of(config_, request_state->num_prompt, request.sampling.max_tokens);
  request_state->length_class = kv_.geometry().lengths.class_of(max_len);
  request_state->sequences.resize(request.n);
  request_state->stops_for_forks = request.n > 1 && keeps_state();
  for (int i = request.n - 1; i >= 0; --i) {
    Sequence& seq = request_state->sequences[i];
    seq.of = request_state.get();
    seq.index = i;
    seq.max_len = max_len;
    seq.parent = i > 0 ? &request_state->sequences[0] : nullptr;
    if (i == 0) seq.tokens = std::move(request.prompt);
    seq.tokens.reserve(max_len);
    if (i > 0) seq.tokens = request.prompt;
    seq.drafts.reserve(config_.num_draft_tokens);
    kv_.prepare(seq.kv, max_len);
  }
  // What lies behind the longest answer is no guess of it.
  const size_t most = std::min<size_t>(request.prediction.size(), max_len - request_state->num_prompt);
  request.prediction.resize(config_.num_draft_tokens > 0 ? most : 0);
  request_state->request = std::move(request);
  return request_state;
}

bool Scheduler::has_place(int num_sequences) const {
  return static_cast<int>(running_.size()) + num_waiting_ + num_sequences <= max_open(config_);
}

void Scheduler::take(SchedulerInput input, Time now) {
  std::visit([&](auto& one) { take_in(one, now); }, input);
}

void Scheduler::take_in(Add& add, Time now) {
  RequestState& request_state = *add.request_state;
  const RequestId id = request_state.request.id;
  SERVAL_CHECK(has_place(request_state.request.n) && !requests_.find(id), id, running_.size(), num_waiting_);
  if (request_state.request.deadline != Time{0}) deadlines_.push(request_state);
  measure_line(now);
  const bool is_late = config_.max_wait_ms > 0 && config_.policy == QueuePolicy::kFcfs &&
                       !goes_past_the_line(request_state) && expected_wait_ms() > config_.max_wait_ms;
  for (Sequence& seq : request_state.sequences) {
    seq.id = next_seq_++;
    seq.arrival = next_arrival_++;
    flows_.join(seq, is_late);
    queue(seq);
  }
  stats_.prompt_tokens += request_state.num_prompt;
  requests_.insert(std::move(add.request_state));
}

void Scheduler::take_retired(std::vector<std::unique_ptr<RequestState>>& retired) {
  for (std::unique_ptr<RequestState>& request_state : retired_) retired.push_back(std::move(request_state));
  retired_.clear();
}

void Scheduler::reserve(Batch& batch) const {
  const size_t most = config_.max_num_seqs;
  const BlockGeometry& geometry = kv_.geometry();
  batch.seqs.reserve(most);
  batch.tokens.reserve(config_.max_num_batched_tokens);
  batch.parents.reserve(max_drafts_of_step(config_));
  batch.masks.reserve((most + max_drafts_of_step(config_)) * config_.mask_words);
  batch.blocks.reserve(most * geometry.table_entries(config_.max_model_len) * geometry.num_groups);
  batch.admitted.resize(most);
  for (Admission& admission : batch.admitted) {
    admission.tokens.reserve(config_.max_model_len);
    if (config_.num_draft_tokens > 0) admission.prediction.reserve(config_.max_model_len);
    admission.sampling.eos_token_ids.reserve(kUsualList);
    admission.sampling.stop_token_ids.reserve(kUsualList);
    admission.sampling.logit_bias.reserve(kUsualList);
  }
  batch.copies.reserve(most * geometry.num_groups);
  batch.freed.reserve(most);
}

void Scheduler::insert_in_order(std::vector<Sequence*>& line, Sequence* seq) const {
  const auto before = [&](const Sequence* a, const Sequence* b) {
    return goes_before(config_.policy, *a, *b);
  };
  line.insert(std::lower_bound(line.begin(), line.end(), seq, before), seq);
}

void Scheduler::take_in(const Abort& abort, Time) {
  if (RequestState* const request_state = requests_.find(abort.request))
    finish_all(*request_state, FinishReason::kAborted);
}

void Scheduler::abort_all() {
  requests_.for_each([&](RequestState& request_state) { finish_all(request_state, FinishReason::kAborted); });
}

void Scheduler::finish_all(RequestState& request_state, FinishReason reason) {
  for (Sequence& seq : request_state.sequences) {
    if (seq.state != SeqState::kFinished) finish(seq, reason, pending_);
  }
}

void Scheduler::take_in(const StopMatched& stop, Time) {
  RequestState* const request_state = requests_.find(stop.request);
  if (!request_state || stop.index < 0 || stop.index >= static_cast<int>(request_state->sequences.size())) return;
  Sequence& seq = request_state->sequences[stop.index];
  if (seq.state != SeqState::kFinished) finish(seq, FinishReason::kStopString, pending_);
}

void Scheduler::take_in(const MaskReady& ready, Time) {
  RequestState* const request_state = requests_.find(ready.request);
  if (!request_state || ready.index < 0 || ready.index >= static_cast<int>(request_state->sequences.size())) return;
  Sequence& seq = request_state->sequences[ready.index];
  if (ready.num_masks <= seq.num_masks) return;
  seq.num_masks = ready.num_masks;
  keep(seq.drafts, ready.drafts);
  take_forced(seq, ready);
}

// What the form makes is a guess like others: a sequence that gave way meanwhile has none.
void Scheduler::take_forced(Sequence& seq, const MaskReady& ready) {
  if (!seq.drafts.empty() || seq.state != SeqState::kRunning) return;
  const int32_t most = std::min({ready.num_forced, kMaxForced, config_.num_draft_tokens});
  for (int32_t i = 0; i < most; ++i) seq.drafts.push_back({ready.forced[i], i - 1, DrafterKind::kGrammar});
}

bool Scheduler::waits_for_masks() const {
  return std::any_of(running_.begin(), running_.end(), [](const Sequence* seq) { return seq->waits_for_mask(); });
}

void Scheduler::expire(Time now) {
  while (!deadlines_.empty() && now >= deadlines_.top().request.deadline) {
    RequestState& request_state = deadlines_.top();
    deadlines_.erase(request_state);
    finish_all(request_state, FinishReason::kDeadline);
  }
}

SchedulerStats Scheduler::stats() const {
  SchedulerStats stats = stats_;
  stats.num_running = static_cast<int32_t>(running_.size());
  stats.num_waiting = num_waiting_;
  stats.waiting_tokens = waiting_tokens_;
  stats.line_ms = num_waiting_ * ms_per_admission();
  kv_.tell_stats(stats);
  return stats;
}

void Scheduler::check_invariants() const {
  std::vector<const SequenceKv*> holders;
  requests_.for_each([&](const RequestState& request_state) {
    for (const Sequence& seq : request_state.sequences) holders.push_back(&seq.kv);
  });
  kv_.check_invariants(holders);
  size_t slots = free_slots_.size(), running = 0, preempted = 0, in_line = 0;
  int in_flight = 0, held = 0, waiting = 0;
  int64_t queued = 0;
  requests_.for_each([&](const RequestState& request_state) {
    for (const Sequence& seq : request_state.sequences) {
      check_sequence(seq);
      slots += seq.slot >= 0;
      in_flight += seq.num_in_flight;
      running += seq.state == SeqState::kRunning;
      waiting += seq.state == SeqState::kWaiting;
      queued += seq.queued_tokens;
      preempted += seq.state == SeqState::kWaiting && seq.admitted_before;
      in_line += seq.is_in_line;
    }
  });
  for (int i = 0; i < num_in_flight_; ++i) held += static_cast<int>(steps_[i].rows.size());
  SERVAL_CHECK(held == in_flight, held, in_flight);
  SERVAL_CHECK(slots == static_cast<size_t>(config_.max_num_seqs), slots, config_.max_num_seqs);
  SERVAL_CHECK(running == running_.size() && waiting == num_waiting_, running, running_.size(), waiting,
               num_waiting_);
  SERVAL_CHECK(queued == waiting_tokens_, queued, waiting_tokens_);
  SERVAL_CHECK(preempted == preempted_.size(), preempted, preempted_.size());
  SERVAL_CHECK(in_line == flows_.check_invariants(), in_line);
  for (size_t i = 1; i < running_.size(); ++i)
    SERVAL_CHECK(goes_before(config_.policy, *running_[i - 1], *running_[i]), i);
  for (size_t i = 1; i < preempted_.size(); ++i)
    SERVAL_CHECK(goes_before(config_.policy, *preempted_[i - 1], *preempted_[i]), i);
}

void Scheduler::check_sequence(const Sequence& seq) const {
  SERVAL_CHECK(seq.num_computed <= seq.num_known(), seq.id, seq.num_computed, seq.num_known());
  if (seq.state == SeqState::kWaiting) {
    SERVAL_CHECK(seq.slot < 0 && seq.next_row() == 0 && seq.num_in_flight == 0 && seq.kv.blocks[0].empty(),
                 seq.id, seq.slot, seq.num_computed, seq.num_in_flight);
    // In line, unless it gave way or is a fork whose prompt is not computed.
    const bool is_fork = seq.parent && seq.parent->num_computed < seq.num_prompt() - 1;
    SERVAL_CHECK(seq.is_in_line == (!seq.admitted_before && !is_fork), seq.id, seq.is_in_line,
                 seq.admitted_before, is_fork);
  }
  SERVAL_CHECK(seq.drafts.empty() || seq.state == SeqState::kRunning || seq.num_in_flight > 0, seq.id);
  SERVAL_CHECK(seq.granted == 0 && (seq.state == SeqState::kFinished) == (seq.flow == nullptr), seq.id,
               seq.granted);
  if (seq.state != SeqState::kRunning) return;
  SERVAL_CHECK(seq.slot >= 0, seq.id);
  SERVAL_CHECK(seq.num_unknown <= seq.num_in_flight && seq.num_in_flight <= kMaxStepsInFlight, seq.id,
               seq.num_unknown, seq.num_in_flight);
  SERVAL_CHECK((seq.num_rows_ahead == 0) == (seq.num_in_flight == 0), seq.id, seq.num_rows_ahead);
  SERVAL_CHECK(static_cast<int32_t>(seq.tokens.size()) <= seq.max_len, seq.id, seq.tokens.size());
  kv_.check_sequence(seq.kv, seq.of->root, seq.tokens, seq.num_computed, seq.next_row());
}

}  // namespace serval
