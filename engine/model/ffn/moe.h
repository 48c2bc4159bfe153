// Routed experts: a router sends each row to its top_k of several gated feed-forwards, and the row gets the
// sum of their answers by the router's weights (Shazeer et al. 2017; Jiang et al. 2024, Mixtral). No row is
// dropped. Beside them there may be an expert that all rows share (Dai et al. 2024, DeepSeekMoE), whose answer is added
// to theirs last; where theirs is worked on first (a latent width, norms), it is added apart.
#pragma once

#include <vector>

#include "engine/model/ffn/ffn.h"

namespace serval {

struct MoeFfnWeights {
  LinearWeight router;                // [num_experts, hidden]
  Buffer correction;                  // f32 [num_experts]; empty when there is none
  Buffer expert_scales;               // likewise
  Buffer of_tokens;                   // f32 [named_tokens, top_k]
  LinearWeight latent_in;             // [latent, hidden]
  std::vector<LinearWeight> gate_up;  // of each expert [2 * intermediate, width()]: gate rows, then up rows
  std::vector<LinearWeight> down;     // of each expert [width(), intermediate]
  LinearWeight latent_out;            // [hidden, latent]
  LinearWeight shared_gate_up;        // [2 * shared_size, hidden]
  LinearWeight shared_down;           // [hidden, shared_size]
  LinearWeight shared_gate;           // [1, hidden]
  NormWeights router_norm, experts_norm, experts_post_norm, shared_post_norm;  // [hidden]
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
  bool has_gate = true;  // else experts, the shared one too, are down(activation(up(x))) (Nemotron 3)
  // Of what the routed experts read and answer, which is projected to it and back (Nemotron 3); 0: hidden_size.
  int latent_size = 0;
  // The router and the routed experts read the residual, each by a norm of their own, and their answer and that of the
  // shared expert, which reads what the part is given, are normalised before they are added (Gemma 4).
  NormSpec own_norm;
  // The vocabulary, where a table says which experts each of its tokens has (DeepSeek-V4, section 2.1); 0: rows choose.
  int named_tokens = 0;
  bool has_expert_scales = false;  // of an expert's weights, at last

  int width() const { return latent_size > 0 ? latent_size : hidden_size; }
  bool adds_shared_apart() const { return latent_size > 0 || own_norm.is_there(); }

  void list_slots(int64_t hidden, MoeFfnWeights& weights, SlotList& slots) const;
  int64_t scratch_width() const;
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const MoeFfnWeights& weights, const FfnInput& input) const;

 private:
  int ups() const { return has_gate ? 2 : 1; }  // matrices of an expert beside down
};

}  // namespace serval
