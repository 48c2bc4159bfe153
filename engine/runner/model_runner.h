// One rank: takes a Batch, keeps the device-side tables of the running sequences, runs the forward pass,
// samples, and returns a ModelOutput. Knows nothing of queues, text or clients. All methods on the engine
// thread; execute() allocates nothing once warm.
#pragma once

#include <memory>

#include "engine/batch.h"
#include "engine/model/model_spec.h"
#include "engine/model/weights.h"
#include "engine/runner/drafting.h"
#include "engine/runner/memory_plan.h"
#include "kernels/backend.h"

namespace serval {

class ModelRunner {
 public:
  // Allocates everything of the plan beside the weights, which are that backend's, and touches it, but for a large KV
  // cache (Backend::reserve); repeats the steps that the device wants to see before it serves. Throws at start-up. The
  // backend outlives the runner; other runners on it may run in turns with this one, on the same thread.
  ModelRunner(ModelSpec spec, ModelWeights weights, const MemoryPlan& plan, Backend& backend, Drafters drafters = {});
  ~ModelRunner();

  // Starts a step; at most two may be on their way. `batch` is not needed afterwards. A token of a step that
  // was not waited for yet is kTokenOnDevice in the next.
  void launch(const Batch& batch);
  // Waits for the oldest step on its way; `output` is cleared and filled, but for guesses. Rows of a
  // sequence whose logits are not finite mark only that sequence as failed. Drafts that came true are then computed
  // positions like any other; the KV behind them is anything.
  void wait(ModelOutput& output);
  // Adds guesses of what follows to the output that wait() gave last: after each, before anything else.
  void guess(ModelOutput& output);
  void execute(const Batch& batch, ModelOutput& output);  // launch, wait, guess

  // The device works on its own: a step may be launched while another runs, and should be.
  bool is_asynchronous() const;
  const MemoryPlan& plan() const;
  int vocab_size() const;  // output width: the bound of every caller-supplied token id

 private:
  struct Impl;
  void warm_up();
  std::unique_ptr<Impl> impl_;
};

}  // namespace serval
