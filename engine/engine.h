// The loop that alternates a pure decision (Scheduler) with a device function (StepExecutor), and the only
// thread-safe door to both.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "engine/batch.h"
#include "engine/config.h"
#include "engine/kv_geometry.h"
#include "engine/request.h"
#include "engine/stats.h"
#include "kernels/base/status.h"

namespace serval {

// The clock of every Time an engine gives or takes. Any thread.
Time engine_now();

// What runs steps. Called on the engine thread only; steps are over in the order they were launched.
struct StepExecutor {
  std::function<void(const Batch&)> launch;  // starts a step; the batch stays as it is until the step is over
  std::function<void(ModelOutput&)> wait;    // until the oldest step launched is over; gives its result
  std::function<void(ModelOutput&)> guess;   // what may follow, into the result that wait() gave last; may be empty
  // The next step may be launched while one runs. Its batch then has kTokenOnDevice where that step's token
  // goes, and steps must see each other's effects as if they ran in turn.
  bool overlap = false;
};
// An executor that computes on the calling thread, a step at a time.
StepExecutor run_in_turn(std::function<void(const Batch&, ModelOutput&)> execute);
// A ModelRunner, one step ahead when its device works on its own. The runner outlives the executor.
template <class Runner>
StepExecutor run_on(Runner& runner) {
  return {.launch = [&runner](const Batch& batch) { runner.launch(batch); },
          .wait = [&runner](ModelOutput& output) { runner.wait(output); },
          .guess = [&runner](ModelOutput& output) { runner.guess(output); },
          .overlap = runner.is_asynchronous()};
}
// Called on the engine thread after every step that had events. The batch may be swapped with an empty
// (recycled) one; the callee must not block and must not allocate in steady state.
using EventSink = std::function<void(EventBatch&)>;

class Engine {
 public:
  // Starts the engine thread. Throws std::runtime_error when a recording is asked for and cannot be written.
  Engine(const EngineConfig& config, const BlockGeometry& geometry, StepExecutor executor, EventSink sink);
  ~Engine();  // ends the loop when what was launched is over; whatever still runs ends with kAborted

  // Any thread; never waits for a step. The request must already be valid (the one validator has seen it):
  // prompt not empty, prompt + max_tokens <= max_model_len, fits(). Fails with kOverloaded when the queue is
  // full. This and the two below may throw std::bad_alloc, and then have done nothing.
  Result<void> submit(Request request);
  // Any thread. Takes effect before the next step is planned: one kAborted event per unfinished sequence is
  // published, and blocks are freed as soon as no step in flight writes to them.
  void abort(RequestId id);
  // Any thread. The text layer matched a stop string in sequence `index`, which ends with what was told of it.
  void stop_string_matched(RequestId id, int index);
  // Any thread. Masks for the first `num_masks` output tokens of sequence `index` are there.
  // Of the guesses that it was told of, those in the set may be verified; where there is none, those of `forced`, a chain
  // of at most kMaxForced.
  void mask_ready(RequestId id, int index, int num_masks, uint64_t drafts, std::span<const TokenId> forced = {});

  bool idle() const;          // nothing waiting or running
  EngineStats stats() const;  // a snapshot taken between steps; never waits for a step

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace serval
