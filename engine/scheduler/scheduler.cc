#include "engine/scheduler/scheduler.h"

#include <algorithm>
#include <utility>

#include "engine/scheduler/scheduler_impl.h"
#include "kernels/base/check.h"

namespace serval {

Scheduler::Impl::Impl(const SchedulerConfig& scheduler_config, const BlockGeometry& geometry)
    : config(scheduler_config), memory(geometry, scheduler_config) {
  SERVAL_CHECK(config.max_num_seqs > 0 && config.max_num_batched_tokens > 0 && config.max_prefill_chunk > 0,
               config.max_num_seqs, config.max_num_batched_tokens, config.max_prefill_chunk);
  const int most = config.max_num_seqs + config.max_waiting;
  sequences.resize(most);
  requests.resize(most);
  for (auto seq = sequences.rbegin(); seq != sequences.rend(); ++seq) unused_sequences.push_back(&*seq);
  for (auto request = requests.rbegin(); request != requests.rend(); ++request)
    unused_requests.push_back(&*request);
  by_id.reserve(most);
  waiting.reserve(most);
  running.reserve(config.max_num_seqs);
  for (SlotId slot = config.max_num_seqs - 1; slot >= 0; --slot) {
    slots.push_back(memory.make_sequence_kv());
    free_slots.push_back(slot);
  }
  left_slots.reserve(config.max_num_seqs);
  in_flight.reserve(config.max_num_seqs);
}

Result<void> Scheduler::Impl::add(Request request) {
  const auto prompt_len = static_cast<int>(request.prompt.size());
  SERVAL_CHECK(fits(memory.geometry(), config, prompt_len, request.sampling.max_tokens, request.n),
               prompt_len, request.sampling.max_tokens, request.n);
  if (request.n > static_cast<int>(unused_sequences.size())) {
    return Error{.kind = ErrorKind::kOverloaded,
                 .code = "queue_full",
                 .message = "The server is at its limit of " + std::to_string(sequences.size()) +
                            " sequences running and waiting; try again later.",
                 .param = "",
                 .retry_after_s = 1};
  }
  RequestState& state = *unused_requests.back();
  const auto place =
      std::ranges::lower_bound(by_id, request.id, {}, [](RequestState* r) { return r->request.id; });
  SERVAL_CHECK(place == by_id.end() || (*place)->request.id != request.id, "a request id is in use",
               request.id);
  unused_requests.pop_back();
  by_id.insert(place, &state);
  state = {.request = std::move(request)};
  state.root = memory.acquire_root(state.request.cache_salt);
  ++num_arrivals;
  for (int i = state.request.n - 1; i >= 0;
       --i) {  // the first takes the prompt itself, when the others have their copy
    Sequence& seq = *unused_sequences.back();
    unused_sequences.pop_back();
    std::vector<TokenId> tokens = i == 0 ? std::move(state.request.prompt) : state.request.prompt;
    tokens.reserve(prompt_len + state.request.sampling.max_tokens);
    seq = {.id = last_seq + 1 + i,
           .request = &state,
           .next = state.first,
           .index = i,
           .state = i == 0 ? SequenceState::kWaiting : SequenceState::kParked,
           .key = {.priority = state.request.priority, .arrival = num_arrivals, .index = i},
           .tokens = std::move(tokens),
           .num_prompt = prompt_len};
    state.first = &seq;
  }
  last_seq += state.request.n;
  num_live += state.request.n;
  state.num_live = state.request.n;
  insert_ordered(waiting, state.first);
  return {};
}

void Scheduler::Impl::insert_ordered(std::vector<Sequence*>& line, Sequence* seq) {
  const auto before = [this](const Sequence* a, const Sequence* b) { return goes_before(a, b); };
  line.insert(std::lower_bound(line.begin(), line.end(), seq, before), seq);
}

void Scheduler::Impl::erase(std::vector<Sequence*>& line, const Sequence* seq) {
  const auto found = std::find(line.begin(), line.end(), seq);
  SERVAL_CHECK(found != line.end(), seq->id);
  line.erase(found);
}

RequestState* Scheduler::Impl::find(RequestId id) {
  const auto found = std::ranges::lower_bound(by_id, id, {}, [](RequestState* r) { return r->request.id; });
  return found != by_id.end() && (*found)->request.id == id ? *found : nullptr;
}

void Scheduler::Impl::end_request(RequestState& request, FinishReason reason, EventBatch& events) {
  for (Sequence *seq = request.first, *next = nullptr; seq; seq = next) {
    next = seq->next;  // the request's record goes with the last of its sequences
    if (seq->state == SequenceState::kFinished) continue;
    publish_finish(*seq, reason, seq->num_output(), events);
    end(*seq, reason, true);
  }
}

// A finish without a token of its own.
void Scheduler::Impl::publish_finish(Sequence& seq, FinishReason reason, int num_output, EventBatch& events) {
  events.events.push_back({.request = seq.request->request.id,
                           .index = seq.index,
                           .num_output = num_output,
                           .first_scheduled = seq.first_scheduled,
                           .cached_tokens = seq.cached_tokens,
                           .finish = reason});
}

// The sequence is over, and its finish published. Its blocks go now, or when the step in flight is over.
void Scheduler::Impl::end(Sequence& seq, FinishReason reason, bool trusted) {
  --num_live;
  ++totals.finished[static_cast<int>(reason)];
  if (seq.state == SequenceState::kWaiting) erase(waiting, &seq);
  if (seq.state == SequenceState::kRunning) erase(running, &seq);
  seq.state = SequenceState::kFinished;
  if (seq.in_flight) return;
  if (seq.slot >= 0) leave_slot(seq, trusted);
  give_back(seq);
}

void Scheduler::Impl::leave_slot(Sequence& seq, bool trusted) {
  memory.release(slots[seq.slot], seq.tokens, seq.num_computed, trusted);
  left_slots.push_back(seq.slot);
  free_slots.push_back(seq.slot);
  seq.slot = -1;
}

void Scheduler::Impl::give_back(Sequence& seq) {
  RequestState& request = *seq.request;
  Sequence** link = &request.first;
  while (*link != &seq) link = &(*link)->next;
  *link = seq.next;
  seq = {};
  unused_sequences.push_back(&seq);
  if (--request.num_live > 0) {
    // Somebody has to compute the prompt that the others wait for.
    const auto waits = [](const Sequence* s) {
      return s->state == SequenceState::kParked || s->state == SequenceState::kFinished;
    };
    const Sequence* s = request.first;
    while (s && waits(s)) s = s->next;
    if (!s) unpark(request, 1);
    return;
  }
  by_id.erase(std::find(by_id.begin(), by_id.end(), &request));
  memory.release_root(request.root);
  request = {};
  unused_requests.push_back(&request);
}

void Scheduler::Impl::unpark(RequestState& request, int most) {
  for (Sequence* seq = request.first; seq && most > 0; seq = seq->next) {
    if (seq->state != SequenceState::kParked) continue;
    seq->state = SequenceState::kWaiting;
    insert_ordered(waiting, seq);
    --most;
  }
}

SchedulerStats Scheduler::Impl::count() const {
  SchedulerStats stats = totals;
  stats.num_running = static_cast<int32_t>(running.size());
  stats.num_waiting = num_live - stats.num_running;
  stats.num_blocks = memory.pool(0).num_blocks();
  stats.num_free_blocks = memory.pool(0).num_free();
  stats.num_cached_blocks = memory.pool(0).num_evictable();
  stats.num_evicted_blocks = memory.num_evicted();
  return stats;
}

Scheduler::Scheduler(const SchedulerConfig& config, const BlockGeometry& geometry)
    : impl_(std::make_unique<Impl>(config, geometry)) {}
Scheduler::~Scheduler() = default;

Result<void> Scheduler::add(Request request) {
  return impl_->add(std::move(request));
}

void Scheduler::abort(RequestId id, EventBatch& events) {
  if (RequestState* request = impl_->find(id)) impl_->end_request(*request, FinishReason::kAborted, events);
}

void Scheduler::abort_all(EventBatch& events) {
  for (size_t i = impl_->by_id.size(); i-- > 0;) {  // each takes itself out, unless a step is in flight
    impl_->end_request(*impl_->by_id[i], FinishReason::kAborted, events);
  }
}

void Scheduler::stop_string_matched(RequestId id, int index, int num_output, EventBatch& events) {
  RequestState* request = impl_->find(id);
  Sequence* seq = request ? request->first : nullptr;
  while (seq && seq->index != index) seq = seq->next;
  if (!seq || seq->state == SequenceState::kFinished) return;
  impl_->publish_finish(*seq, FinishReason::kStopString, std::min(num_output, seq->num_output()), events);
  impl_->end(*seq, FinishReason::kStopString, true);
}

void Scheduler::next_batch(Time now, Batch& batch, EventBatch& events) {
  impl_->next_batch(now, batch, events);
}
void Scheduler::apply(const ModelOutput& output, EventBatch& events) {
  impl_->apply(output, events);
}
bool Scheduler::has_work() const {
  return impl_->num_live > 0;
}
SchedulerStats Scheduler::stats() const {
  return impl_->count();
}
void Scheduler::check_invariants() const {
  impl_->check_invariants();
}

}  // namespace serval
