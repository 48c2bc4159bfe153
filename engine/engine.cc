#include "engine/engine.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "engine/scheduler/recorder.h"
#include "engine/scheduler/scheduler.h"

namespace serval {

Time engine_now() {
  return std::chrono::steady_clock::now().time_since_epoch();
}

StepExecutor run_in_turn(std::function<void(const Batch&, ModelOutput&)> execute) {
  const auto launched = std::make_shared<const Batch*>(nullptr);
  StepExecutor executor;
  executor.launch = [launched](const Batch& batch) { *launched = &batch; };
  executor.wait = [launched, execute = std::move(execute)](ModelOutput& output) {
    execute(**launched, output);
  };
  return executor;
}

struct Engine::Impl {
  Impl(const EngineConfig& engine_config, const BlockGeometry& geometry, StepExecutor step_executor,
       EventSink event_sink)
      : config(engine_config),
        scheduler(config.scheduler, geometry),
        executor(std::move(step_executor)),
        sink(std::move(event_sink)) {
    if (!config.record_path.empty()) recorder.emplace(config.record_path, config.scheduler, geometry);
    stats.last_progress_ns = engine_now().count();
    stats.scheduler = scheduler.stats();
    inbox.reserve(1024);
    taken.reserve(1024);
    retired.reserve(max_retired());
    for (InFlight& step : in_flight) scheduler.reserve(step.batch);
    const SchedulerConfig& limits = config.scheduler;
    events.events.reserve(2 * max_retired() + max_drafts_of_step(limits));
    output.seqs.reserve(limits.max_num_seqs);
    output.tokens.reserve(limits.max_num_seqs + max_drafts_of_step(limits));
    output.drafts.reserve(size_t{1} * limits.max_num_seqs * limits.num_draft_tokens);
    output.prompt_tokens.reserve(limits.max_num_batched_tokens);
    events.prompt_parts.reserve(limits.max_num_seqs);
    events.prompt_logprobs.reserve(limits.max_num_batched_tokens);
    thread = std::thread([this] { loop(); });
  }

  ~Impl() {
    {
      std::lock_guard lock(inbox_mutex);
      stopping = true;
    }
    inbox_filled.notify_one();
    thread.join();
  }

  struct InFlight {
    Batch batch;
    Time begin{0};
  };

  // --- the engine thread ---

  // Without overlap a step is over before the next is planned. With it the device has the next step by the
  // time it is done with one, unless all that could run waits for that one.
  void loop() {
    const int max_in_flight = executor.overlap ? kMaxStepsInFlight : 1;
    while (take_inbox()) {
      const bool launched = plan_and_launch();
      waits_for_masks = !launched && num_in_flight == 0 && scheduler.waits_for_masks();
      if (num_in_flight == max_in_flight || (!launched && num_in_flight > 0)) complete_step();
      tell();
      hand_back();
    }
    while (num_in_flight > 0) complete_step();
    abort_everything();
  }

  // Decides the next step and starts it. False when there is nothing to run now.
  bool plan_and_launch() {
    InFlight& next = in_flight[(oldest + num_in_flight) % in_flight.size()];
    next.begin = engine_now();
    if (recorder) recorder->next_batch(next.begin);
    scheduler.next_batch(next.begin, next.batch);
    if (next.batch.empty()) return false;
    step_begins(next.begin);
    executor.launch(next.batch);
    ++num_in_flight;
    return true;
  }

  // Waits for the oldest step in flight and takes its result in. Its tokens are told before anybody guesses what follows.
  void complete_step() {
    const InFlight& step = in_flight[oldest];
    executor.wait(output);
    const Time now = engine_now();
    if (recorder) recorder->apply(output, now);
    scheduler.apply(output, now, events);
    count_step(step.batch, now - std::max(step.begin, last_over), now);
    last_over = now;
    oldest = (oldest + 1) % static_cast<int>(in_flight.size());
    --num_in_flight;
    if (executor.guess) {
      tell();
      executor.guess(output);
      if (recorder) recorder->take_guesses(output, now);
      const std::lock_guard lock(stats_mutex);
      stats.draft_work += output.draft_work;
    }
    scheduler.take_guesses(output);
  }

  void tell() {
    scheduler.take_events(events);
    snapshot();  // before anybody is told: who hears of an end finds it in the statistics
    publish();
  }

  // Hands what other threads sent to the scheduler. Waits while there is nothing to do. False: stop.
  bool take_inbox() {
    {
      std::unique_lock lock(inbox_mutex);
      const auto is_told = [&] { return stopping || !inbox.empty(); };
      // Deadlines pass meanwhile.
      if (waits_for_masks) inbox_filled.wait_for(lock, std::chrono::milliseconds(10), is_told);
      inbox_filled.wait(lock, [&] { return is_told() || num_in_flight > 0 || scheduler.has_work(); });
      if (stopping) return false;
      std::swap(inbox, taken);
    }
    for (SchedulerInput& input : taken) take(input);
    taken.clear();
    return true;
  }

  void take(SchedulerInput& input) {
    const Time now = engine_now();
    if (const Add* const add = std::get_if<Add>(&input)) taken_tokens += add->request_state->num_prompt;
    if (recorder) recorder->take(input, now);
    scheduler.take(std::move(input), now);
  }

  void publish() {
    if (events.events.empty() && events.prompt_parts.empty()) return;
    int finished = 0;
    for (const TokenEvent& event : events.events) finished += event.finish != FinishReason::kNone;
    num_open.fetch_sub(finished);
    sink(events);
    events.clear();
  }

  // What the requests that are over have held is freed by the next thread that submits, not by this one.
  void hand_back() {
    const std::lock_guard lock(inbox_mutex);
    scheduler.take_retired(retired);
  }

  // From here on somebody waits for a step: should it hang, the snapshot says so.
  void step_begins(Time now) {
    std::lock_guard lock(stats_mutex);
    stats.has_runnable_work = true;
    if (num_in_flight == 0) stats.last_progress_ns = now.count();  // up to now there was nothing to wait for
  }

  void count_step(const Batch& batch, Time duration, Time now) {
    std::lock_guard lock(stats_mutex);
    stats.last_progress_ns = now.count();
    ++stats.steps;
    stats.step_seconds_total += std::chrono::duration<double>(duration).count();
    stats.last_step_tokens = static_cast<int32_t>(batch.tokens.size());
    stats.last_step_seqs = static_cast<int32_t>(batch.seqs.size());
    stats.max_step_seqs = std::max(stats.max_step_seqs, stats.last_step_seqs);
    bool decodes = false, prompts = false;
    for (const SeqStep& step : batch.seqs) (step.num_tokens - step.num_drafts > 1 || !step.sample ? prompts : decodes) = true;
    if (decodes && prompts)
      stats.max_mixed_step_seqs = std::max(stats.max_mixed_step_seqs, stats.last_step_seqs);
  }

  void snapshot() {
    std::lock_guard lock(stats_mutex);
    stats.scheduler = scheduler.stats();
    unseen_tokens -= std::exchange(taken_tokens, 0);
    if (recorder) stats.recording_lost = recorder->num_lost();
    stats.has_runnable_work = num_in_flight > 0 || scheduler.has_work();
    if (num_in_flight == 0) stats.last_progress_ns = engine_now().count();
  }

  void abort_everything() {
    {
      std::lock_guard lock(inbox_mutex);
      std::swap(inbox, taken);
    }
    for (SchedulerInput& input : taken) take(input);
    scheduler.abort_all();
    scheduler.take_events(events);
    publish();
  }

  const EngineConfig config;
  Scheduler scheduler;
  const StepExecutor executor;
  const EventSink sink;
  std::optional<Recorder> recorder;
  std::array<InFlight, kMaxStepsInFlight> in_flight;  // a ring
  int oldest = 0, num_in_flight = 0;
  bool waits_for_masks = false;  // nothing can run before one comes
  Time last_over{0};  // when the last step was over
  ModelOutput output;
  EventBatch events;
  std::vector<SchedulerInput> taken;

  std::mutex inbox_mutex;
  std::condition_variable inbox_filled;
  std::vector<SchedulerInput> inbox;
  std::vector<std::unique_ptr<RequestState>> retired;  // never more than could be open at the last submission
  bool stopping = false;
  std::atomic<int> num_open{0};  // sequences submitted and not yet finished

  mutable std::mutex stats_mutex;
  EngineStats stats;
  int64_t unseen_tokens = 0;  // of prompts let in that are not in stats yet
  int64_t taken_tokens = 0;   // of them, those that the scheduler has; on the engine thread

  std::thread thread;

  // Sequences that wait, run, or have ended in a step that is not over.
  size_t max_retired() const {
    return static_cast<size_t>(2) * config.scheduler.max_num_seqs + config.scheduler.max_waiting;
  }

  // Counts the prompt among those that wait. False: there are too many tokens before it. One alone may be as long as it likes.
  bool take_tokens(int64_t tokens) {
    const std::lock_guard lock(stats_mutex);
    const int64_t waiting = stats.scheduler.waiting_tokens + unseen_tokens;
    if (waiting > 0 && waiting + tokens > config.scheduler.max_waiting_tokens) return false;
    unseen_tokens += tokens;
    return true;
  }
  void give_back_tokens(int64_t tokens) {
    const std::lock_guard lock(stats_mutex);
    unseen_tokens -= tokens;
  }

  // Come back when those that wait now have been let in, as fast as they were in the last moments.
  Error queue_full(const std::string& what) const {
    const std::lock_guard lock(stats_mutex);
    const int seconds = static_cast<int>(std::min(std::ceil(stats.scheduler.line_ms / 1000), 3600.0));
    return {ErrorKind::kOverloaded, "queue_full", "The queue is full (" + what + "); try again later.", "", std::max(1, seconds)};
  }

  void submit(Request request) {
    std::unique_ptr<RequestState> request_state = scheduler.prepare(std::move(request));
    std::vector<std::unique_ptr<RequestState>> to_free;
    to_free.reserve(max_retired());
    {
      std::lock_guard lock(inbox_mutex);
      inbox.push_back(Add{std::move(request_state)});
      std::swap(to_free, retired);
    }
    inbox_filled.notify_one();
  }

  void send(SchedulerInput input) {
    {
      std::lock_guard lock(inbox_mutex);
      inbox.push_back(std::move(input));
    }
    inbox_filled.notify_one();
  }
};

Engine::Engine(const EngineConfig& config, const BlockGeometry& geometry, StepExecutor executor,
               EventSink sink)
    : impl_(std::make_unique<Impl>(config, geometry, std::move(executor), std::move(sink))) {}

Engine::~Engine() = default;

Result<void> Engine::submit(Request request) {
  const int limit = impl_->config.scheduler.max_num_seqs + impl_->config.scheduler.max_waiting;
  if (impl_->num_open.fetch_add(request.n) + request.n > limit) {
    impl_->num_open.fetch_sub(request.n);
    return impl_->queue_full(std::to_string(limit) + " sequences");
  }
  const int n = request.n;
  const auto tokens = static_cast<int64_t>(request.prompt.size());
  if (!impl_->take_tokens(tokens)) {
    impl_->num_open.fetch_sub(n);
    return impl_->queue_full(std::to_string(impl_->config.scheduler.max_waiting_tokens) + " tokens of prompts that wait");
  }
  try {
    impl_->submit(std::move(request));
  } catch (...) {  // no memory for it: it was not taken
    impl_->num_open.fetch_sub(n);
    impl_->give_back_tokens(tokens);
    throw;
  }
  return {};
}

void Engine::abort(RequestId id) {
  impl_->send(Abort{id});
}

void Engine::stop_string_matched(RequestId id, int index) {
  impl_->send(StopMatched{id, index});
}

void Engine::mask_ready(RequestId id, int index, int num_masks, uint64_t drafts, std::span<const TokenId> forced) {
  MaskReady ready{.request = id, .index = index, .num_masks = num_masks, .drafts = drafts, .num_forced = static_cast<int32_t>(forced.size())};
  SERVAL_CHECK(forced.size() <= std::size(ready.forced), forced.size());
  std::ranges::copy(forced, ready.forced);
  impl_->send(ready);
}

bool Engine::idle() const {
  return impl_->num_open.load() == 0;
}

EngineStats Engine::stats() const {
  std::lock_guard lock(impl_->stats_mutex);
  return impl_->stats;
}

}  // namespace serval
