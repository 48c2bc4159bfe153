// Routed experts: a router sends each row to its top_k of several gated feed-forwards, and the row gets the
// sum of their answers by the router's weights (Shazeer et al. 2017; Jiang et al. 2024, Mixtral). No row is
// dropped.
#pragma once

#include <vector>

#include "engine/model/ffn/ffn.h"

namespace serval {

struct MoeFfnWeights {
  LinearWeight router;                // [num_experts, hidden]
  std::vector<LinearWeight> gate_up;  // of each expert [2 * intermediate, hidden]: gate rows, then up rows
  std::vector<LinearWeight> down;     // of each expert [hidden, intermediate]
};

struct MoeFfnSpec {
  using Weights = MoeFfnWeights;

  int hidden_size = 0;
  int intermediate_size = 0;  // of one expert
  int num_experts = 0;        // 1..kMaxExperts
  int top_k = 0;              // 1..kMaxExpertsPerRow
  RoutingRule rule = RoutingRule::kSoftmaxRenormalised;
  Activation activation = Activation::kSilu;

  void list_slots(int64_t hidden, MoeFfnWeights& weights, SlotList& slots) const;
  int64_t scratch_width() const;
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const MoeFfnWeights& weights, const FfnInput& input) const;
};

}  // namespace serval
