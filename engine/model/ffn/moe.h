// Routed experts: a router sends each row to its top_k of several gated feed-forwards, and the row gets the
// sum of their answers by the router's weights (Shazeer et al. 2017; Jiang et al. 2024, Mixtral). No row is
// dropped. Beside them there may be an expert that all rows share (Dai et al. 2024, DeepSeekMoE).
#pragma once

#include <vector>

#include "engine/model/ffn/ffn.h"

namespace serval {

struct MoeFfnWeights {
  LinearWeight router;                // [num_experts, hidden]
  Buffer correction;                  // f32 [num_experts]; empty when there is none
  std::vector<LinearWeight> gate_up;  // of each expert [2 * intermediate, hidden]: gate rows, then up rows
  std::vector<LinearWeight> down;     // of each expert [hidden, intermediate]
  LinearWeight shared_gate_up;        // [2 * shared_size, hidden]
  LinearWeight shared_down;           // [hidden, shared_size]
  LinearWeight shared_gate;           // [1, hidden]
};

struct MoeFfnSpec {
  using Weights = MoeFfnWeights;

  int hidden_size = 0;
  int intermediate_size = 0;  // of one expert
  int num_experts = 0;        // 1..kMaxExperts
  int top_k = 0;              // 1..kMaxExpertsPerRow
  RoutingRule rule = {.renormalise = true};
  bool has_correction = false;  // a bias of the choice (RoutingRule)
  bool router_bias = false;     // of the logits themselves
  bool weighs_inputs = false;   // ExpertRouting
  Activation activation = Activation::kSilu;
  float gate_limit = 0;  // > 0: gate and up are clamped, and up_offset is added to up (gpt-oss)
  float up_offset = 0;
  bool expert_bias = false;  // on gate, up and down of the routed experts
  int shared_size = 0;       // of the shared expert; 0: there is none
  bool shared_bias = false;  // on its gate, up and down
  // Its answer is multiplied by the sigmoid of a logit (Qwen2-MoE).
  bool has_shared_gate = false;

  void list_slots(int64_t hidden, MoeFfnWeights& weights, SlotList& slots) const;
  int64_t scratch_width() const;
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const MoeFfnWeights& weights, const FfnInput& input) const;
};

}  // namespace serval
