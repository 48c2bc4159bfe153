#include "tests/engine/engine_driver.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace serval::testing {

EngineDriver::EngineDriver(const std::filesystem::path& model, const EngineConfig& config, Order order,
                           std::unique_ptr<Speculator> speculator)
    : runner_(model, config, std::move(speculator)),
      masks_(runner_->vocab_size(), [this](RequestId id, int index, int num_masks, uint64_t drafts, std::span<const TokenId> forced) { engine_.mask_ready(id, index, num_masks, drafts, forced); }),
      engine_(config, runner_->plan().geometry,
              order == Order::kAsTheDeviceLikes
                  ? run_on(*runner_)
                  : StepExecutor{.launch = [this](const Batch& batch) { runner_->launch(batch); },
                                 .wait = [this](ModelOutput& output) { runner_->wait(output); },
                                 .guess = [this](ModelOutput& output) { runner_->guess(output); },
                                 .overlap = order == Order::kOneAhead},
              [this](EventBatch& batch) { take(batch); }) {}

RequestId EngineDriver::submit(Request request) {
  const RequestId id = ++next_id_;
  request.id = id;
  if (request.constrained) request.constraint = masks_.constraint(id, request.n, request.speculation.drafters != 0);
  {
    const std::lock_guard lock(mutex_);
    State& state = states_[id];
    state.sequences.resize(request.n);
    state.unfinished = request.n;
    // Room for everything that will be told, so that a test may count the engine thread's allocations.
    for (Told& told : state.sequences) {
      told.tokens.reserve(request.sampling.max_tokens);
      told.logprobs.reserve(request.sampling.max_tokens);
      told.top.reserve(static_cast<size_t>(request.sampling.max_tokens) *
                       std::max(request.sampling.num_logprobs, 0));
    }
  }
  const Result<void> result = engine_.submit(std::move(request));
  SERVAL_CHECK(result.ok(), result.error().message);
  return id;
}

void EngineDriver::take(EventBatch& batch) {
  {
    const std::lock_guard lock(mutex_);
    for (const TokenEvent& event : batch.events) {
      State& state = states_.at(event.request);
      Told& told = state.sequences.at(event.index);
      SERVAL_CHECK(told.finish == FinishReason::kNone, "an event after the last", event.request, event.index);
      if (event.token >= 0) {
        told.tokens.push_back(event.token);
        told.logprobs.push_back(event.logprob);
        for (int i = 0; i < event.num_top; ++i) {
          const TopLogprob& top = batch.top.at(event.top_begin + i);
          told.top.emplace_back(top.token, top.logprob);
        }
      }
      told.cached_tokens = std::max(told.cached_tokens, event.cached_tokens);
      told.finish = event.finish;
      const auto pooled = batch.pooled.begin() + event.pooled_begin;
      told.pooled.insert(told.pooled.end(), pooled, pooled + event.num_pooled);
      if (event.finish != FinishReason::kNone) --state.unfinished;
    }
    batch.clear();
  }
  changed_.notify_all();
  if (hook_) hook_();
}

std::vector<Told> EngineDriver::wait(RequestId id) {
  std::unique_lock lock(mutex_);
  State& state = states_.at(id);
  changed_.wait(lock, [&] { return state.unfinished == 0; });
  return state.sequences;
}

void EngineDriver::wait_for_tokens(RequestId id, int num_output) {
  std::unique_lock lock(mutex_);
  State& state = states_.at(id);
  changed_.wait(lock, [&] {
    return state.unfinished == 0 ||
           std::any_of(state.sequences.begin(), state.sequences.end(),
                       [&](const Told& told) { return static_cast<int>(told.tokens.size()) >= num_output; });
  });
}

}  // namespace serval::testing
