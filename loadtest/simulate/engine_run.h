// Runs a workload on the real engine at its own times, without HTTP: what a client without a network would
// see, and how long every step took.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/batch.h"
#include "engine/config.h"
#include "engine/kv_geometry.h"
#include "loadtest/load/measure.h"
#include "loadtest/load/workload.h"
#include "loadtest/simulate/cost_model.h"

namespace serval::load {

class EngineRun {
 public:
  // Loads the model; the scheduler's context is cut to the model's. Throws std::runtime_error.
  EngineRun(const std::string& model, SchedulerConfig scheduler, int block_size);
  ~EngineRun();

  // Returns when all requests have ended. Their token ids are taken modulo the vocabulary.
  std::vector<Outcome> run(const std::vector<PlannedRequest>& workload);

  std::vector<StepSample> samples() const;  // of all runs since forget_samples(); between runs
  void forget_samples();
  BlockGeometry geometry() const;
  SchedulerConfig scheduler() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace serval::load
