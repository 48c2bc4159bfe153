// What a fleet would do with a workload, without the fleet: the real Scheduler under a virtual clock, with a
// cost model in place of the device. Answers "how many replicas for this trace at this SLO".
#pragma once

#include <string>
#include <vector>

#include "engine/batch.h"
#include "engine/config.h"
#include "engine/kv_geometry.h"
#include "loadtest/load/measure.h"
#include "loadtest/load/workload.h"
#include "loadtest/simulate/cost_model.h"

namespace serval::load {

enum class Routing : uint8_t { kRoundRobin, kLeastLoaded, kPrefix };

// How a prompt's KV goes from a prefill replica to a decode replica. A replica sends one prompt at a time.
struct KvLink {
  double bytes_per_token = 0;
  double bytes_per_s = 0;  // 0: no time passes
  double latency_s = 0;    // of every transfer
};

struct SimulationOptions {
  SchedulerConfig scheduler;
  BlockGeometry geometry;
  CostModel cost;
  int replicas = 1;
  // > 0: so many replicas compute prompts and a first token, and the `replicas` only decode.
  int prefill_replicas = 0;
  KvLink link;
  Routing routing = Routing::kLeastLoaded;  // in each pool
  // With scheduler.num_draft_tokens: how likely a guess comes true when the one before it did.
  double draft_acceptance = 0;
  int concurrency = 0;                      // > 0: closed loop of that many; 0: by the workload's times
  uint64_t seed = 0;                        // of what is drawn from the cost model's spreads
};

struct SimulationResult {
  std::vector<Outcome> outcomes;  // in the workload's order; token_s has first and last only
  std::vector<uint64_t> steps;    // per replica, prefill replicas first
};
// Requests that can never fit fail with "too long". Prompts are their token ids; text prompts count a word as
// a token. A turn of a conversation waits for the one before it, as it does in a real run.
SimulationResult simulate(const SimulationOptions& options, const std::vector<PlannedRequest>& workload);

struct FleetSize {
  int prefill_replicas = 0;
  int replicas = 0;  // 0: even the most replicas do not do
};
// The smallest fleet of at most `most` replicas in which 99 % of the requests meet the SLO; of two pools when
// the options have prefill replicas.
FleetSize find_fleet(SimulationOptions options, const std::vector<PlannedRequest>& workload, const Slo& slo,
                     int most);

}  // namespace serval::load
