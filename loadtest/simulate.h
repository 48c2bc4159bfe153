// What a fleet would do with a workload, without the fleet: the real Scheduler under a virtual clock, with a
// step-time model in place of the device. Answers "how many replicas for this trace at this SLO".
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/batch.h"
#include "engine/config.h"
#include "loadtest/measure.h"
#include "loadtest/workload.h"

namespace serval::load {

// What a step's time depends on.
struct StepShape {
  double rows = 0;     // tokens computed
  double seqs = 0;     // sequences in the step
  double context = 0;  // positions all rows together attend to, in thousands
};
StepShape shape_of(const Batch& batch);

// milliseconds = step + row * rows + seq * seqs + context * context
struct StepCost {
  double step = 1, row = 0, seq = 0, context = 0;
  double milliseconds(const StepShape& shape) const {
    return step + row * shape.rows + seq * shape.seqs + context * shape.context;
  }
};

struct StepSample {
  StepShape shape;
  double milliseconds = 0;
};
// Least squares on relative error (a short step counts as much as a long one); no coefficient is negative.
// Throws std::runtime_error with fewer samples than coefficients.
StepCost fit_step_cost(const std::vector<StepSample>& samples);

std::string cost_json(const StepCost& cost);
StepCost read_cost(const std::string& path);  // throws std::runtime_error with a sentence

enum class Routing : uint8_t { kRoundRobin, kLeastLoaded, kPrefix };

struct SimulationOptions {
  SchedulerConfig scheduler;
  BlockGeometry geometry;
  StepCost cost;
  int replicas = 1;
  Routing routing = Routing::kLeastLoaded;
};

struct SimulationResult {
  std::vector<Outcome> outcomes;  // in the workload's order; token_s has first and last only
  std::vector<uint64_t> steps;    // per replica
};
// Open loop by the workload's times. Requests that can never fit fail with "too long". Prompts are their
// token ids; text prompts count a word as a token.
SimulationResult simulate(const SimulationOptions& options, const std::vector<PlannedRequest>& workload);

// Fewest replicas at which 99 % of the requests meet the SLO; 0 when even `most` do not.
int find_replicas(SimulationOptions options, const std::vector<PlannedRequest>& workload, const Slo& slo,
                  int most);

}  // namespace serval::load
