// The loop that alternates a pure decision (Scheduler) with a device function (ModelRunner), and the only thread-safe door to them.
#pragma once

#include <functional>
#include <memory>

#include "engine/batch.h"
#include "engine/config.h"
#include "engine/request.h"
#include "engine/stats.h"
#include "kernels/base/status.h"

namespace serval {

class Scheduler;
class ModelRunner;

// Called on the engine thread after every step that had events. The batch may be swapped with an empty (recycled) one; the callee
// must not block and must not allocate in steady state.
using EventSink = std::function<void(EventBatch&)>;

class Engine {
 public:
  // The runner is already loaded. Starts the engine thread.
  Engine(const EngineConfig& config, std::unique_ptr<ModelRunner> runner, EventSink sink);
  ~Engine();  // stops the loop; whatever still runs ends with kAborted

  // Any thread; never blocks on a step. Request must already be valid (the one validator has seen it): prompt not empty,
  // prompt + max_tokens <= max_model_len, worst case fits the KV pool. Fails with kOverloaded when the queue is full.
  Result<void> submit(Request request);
  // Any thread. Takes effect within one step: blocks are freed and one kAborted event per unfinished sequence is published.
  void abort(RequestId id);
  // Any thread. The text layer matched a stop string in sequence `index` after `num_output` tokens; later tokens are dropped.
  void stop_string_matched(RequestId id, int index, int num_output);

  bool idle() const;          // nothing waiting or running
  EngineStats stats() const;  // a snapshot taken between steps; never waits for a step

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace serval
