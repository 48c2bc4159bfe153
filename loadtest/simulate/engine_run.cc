#include "loadtest/simulate/engine_run.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "engine/engine.h"
#include "engine/model/model_folder.h"
#include "engine/model/read_model.h"
#include "engine/runner/load_model.h"

namespace serval::load {

using Clock = std::chrono::steady_clock;

struct EngineRun::Impl {
  Impl(const std::string& model, SchedulerConfig scheduler, int block_size) {
    config.scheduler = scheduler;
    config.scheduler.max_waiting = 100'000;
    config.block_size = block_size;
    const auto folder = resolve_model(model);
    config.scheduler.max_model_len =
        std::min(config.scheduler.max_model_len, read_model_spec(folder).max_positions);
    backend = make_backend(config.device);
    runner = load_model(folder, config, *backend);
    engine = std::make_unique<Engine>(
        config, runner->plan().geometry,
        run_in_turn([this](const Batch& batch, ModelOutput& output) { step(batch, output); }),
        [this](EventBatch& events) { see(events); });
  }

  // A step's cost begins where the one before ended, while there is more to do: scheduling and delivery are
  // part of it. A longer pause is taken for idleness. Engine thread.
  void step(const Batch& batch, ModelOutput& output) {
    constexpr auto kIdle = std::chrono::milliseconds(1);
    Clock::time_point step_begin = Clock::now();
    if (step_begin - last_end < kIdle) step_begin = last_end;
    runner->execute(batch, output);
    last_end = Clock::now();
    samples.push_back(
        {shape_of(batch), std::chrono::duration<double, std::milli>(last_end - step_begin).count()});
  }

  // Engine thread.
  void see(EventBatch& events) {
    const double now = std::chrono::duration<double>(Clock::now() - begin).count();
    std::lock_guard lock(mutex);
    for (const TokenEvent& event : events.events) {
      Outcome& outcome = outcomes[event.request - base];
      if (event.token >= 0) {
        outcome.token_s.push_back(now);
        outcome.output_tokens = event.num_output;
        outcome.cached_tokens = event.cached_tokens;
      }
      if (event.finish == FinishReason::kNone) continue;
      outcome.end_s = now;
      if (--open == 0) ended.notify_one();
    }
    events.clear();
  }

  EngineConfig config;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<ModelRunner> runner;
  std::mutex mutex;
  std::condition_variable ended;
  std::vector<Outcome> outcomes;
  std::vector<StepSample> samples;
  int open = 0;
  RequestId next_id = 1, base = 1;
  Clock::time_point begin, last_end;  // last_end: the engine thread's
  std::unique_ptr<Engine> engine;     // last: its thread uses what stands above
};

EngineRun::EngineRun(const std::string& model, SchedulerConfig scheduler, int block_size)
    : impl_(std::make_unique<Impl>(model, scheduler, block_size)) {}

EngineRun::~EngineRun() = default;

std::vector<Outcome> EngineRun::run(const std::vector<PlannedRequest>& workload) {
  Impl& impl = *impl_;
  {
    std::lock_guard lock(impl.mutex);
    impl.outcomes.assign(workload.size(), {});
    impl.open = static_cast<int>(workload.size());
    impl.begin = Clock::now();
    impl.base = impl.next_id;
  }
  const int vocab = impl.runner->vocab_size();
  for (size_t i = 0; i < workload.size(); ++i) {
    std::this_thread::sleep_until(impl.begin + std::chrono::duration_cast<Clock::duration>(
                                                   std::chrono::duration<double>(workload[i].at_s)));
    Request request;
    request.id = impl.next_id++;
    request.prompt.assign(workload[i].token_ids.begin(), workload[i].token_ids.end());
    for (TokenId& id : request.prompt) id %= vocab;
    request.sampling.max_tokens = workload[i].output_tokens;
    request.sampling.ignore_eos = true;
    request.sampling.temperature = 0;
    {
      std::lock_guard lock(impl.mutex);
      Outcome& outcome = impl.outcomes[i];
      outcome.intended_s = outcome.sent_s = workload[i].at_s;
      outcome.prompt_tokens = static_cast<int>(request.prompt.size());
    }
    if (const auto submitted = impl.engine->submit(std::move(request)); !submitted)
      throw std::runtime_error(submitted.error().message);
  }
  std::unique_lock lock(impl.mutex);
  impl.ended.wait(lock, [&] { return impl.open == 0; });
  return impl.outcomes;
}

std::vector<StepSample> EngineRun::samples() const {
  return impl_->samples;
}
void EngineRun::forget_samples() {
  impl_->samples.clear();
}
BlockGeometry EngineRun::geometry() const {
  return impl_->runner->plan().geometry;
}
SchedulerConfig EngineRun::scheduler() const {
  return impl_->config.scheduler;
}

}  // namespace serval::load
