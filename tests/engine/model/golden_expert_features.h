// Features of routed experts and of latent attention (golden_features.h).
#pragma once

#include "tests/engine/model/golden_features.h"

namespace serval::testing {

inline Feature without_score_scale() {
  return {"scale of scores", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) {
              auto& mla = std::get<MlaSpec>(layer.mixer);
              mla.scale = 1 / std::sqrt(static_cast<float>(mla.plain_dim + mla.rotary_dim));
            }
          }};
}
// Of the index that chooses keys.
template <class Spec>
Feature without_choice() {
  return of_mixers<Spec>("choice of keys", [](Spec& s) { s.indexer.top_k *= 100; });
}
template <class Spec>
Feature with_one_more_chosen() {
  return of_mixers<Spec>("how many keys are chosen", [](Spec& s) { ++s.indexer.top_k; });
}
template <class Spec>
Feature without_index_norm() {
  return of_mixer_weights<Spec>("norm of the index's keys", [](typename Spec::Weights& w) {
    auto* const weight = w.indexer.key_norm.weight.template as<float>();
    for (size_t i = 0; i < w.indexer.key_norm.weight.bytes / sizeof(float); ++i) weight[i] = 1;
  });
}
// Of every layer that has experts.
inline Feature with_experts(const std::string& what, void (*change)(MoeFfnSpec&)) {
  return {what, [change](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers)
              if (auto* moe = std::get_if<MoeFfnSpec>(&layer.ffn)) change(*moe);
          }};
}
inline Feature without_renormalised_routing() {
  return with_experts("renormalised routing", [](MoeFfnSpec& moe) { moe.rule.renormalise = false; });
}
inline Feature with_renormalised_routing() {
  return with_experts("routing that is not renormalised", [](MoeFfnSpec& moe) { moe.rule.renormalise = true; });
}
inline Feature with_the_best_expert_alone() {
  return with_experts("second expert", [](MoeFfnSpec& moe) { moe.top_k = 1; });
}
inline Feature without_shared_expert() {
  return with_experts("shared expert", [](MoeFfnSpec& moe) { moe.shared_size = 0, moe.has_shared_gate = false; });
}
inline Feature without_shared_gate() {
  return with_experts("gate of the shared expert", [](MoeFfnSpec& moe) { moe.has_shared_gate = false; });
}
inline Feature without_correction() {
  return with_experts("correction of the choice", [](MoeFfnSpec& moe) { moe.has_correction = false; });
}
inline Feature without_routing_scale() {
  return with_experts("scale of the experts", [](MoeFfnSpec& moe) { moe.rule.scale = 1; });
}
inline Feature without_expert_groups() {
  return with_experts("groups of experts", [](MoeFfnSpec& moe) { moe.rule.num_groups = moe.rule.groups_chosen = 1; });
}
inline Feature with_softmax_scores() {
  return with_experts("score of an expert", [](MoeFfnSpec& moe) { moe.rule.score = RoutingRule::Score::kSoftmax; });
}
inline Feature without_gate_limit() {
  return with_experts("clamp of gate and up", [](MoeFfnSpec& moe) { moe.gate_limit = 1e6f; });
}
inline Feature without_up_offset() {
  return with_experts("what is added to up", [](MoeFfnSpec& moe) { moe.up_offset = 0; });
}
inline Feature without_sinks() {
  return {"sinks", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) attention(layer).has_sinks = false;
          }};
}
inline Feature with_experts_without_bias() {
  return {"experts' biases", [](ModelSpec&, ModelWeights& w) {
            for (LayerWeights& layer : w.layers) {
              auto& moe = std::get<MoeFfnWeights>(layer.ffn);
              for (LinearWeight& weight : moe.gate_up) weight.bias = {};
              for (LinearWeight& weight : moe.down) weight.bias = {};
            }
          }};
}
// The first two experts change places: who is chosen matters.
inline Feature with_experts_exchanged() {
  return {"the chosen experts", [](ModelSpec&, ModelWeights& w) {
            for (LayerWeights& layer : w.layers) {
              auto* const moe = std::get_if<MoeFfnWeights>(&layer.ffn);
              if (moe == nullptr) continue;
              std::swap(moe->gate_up[0], moe->gate_up[1]);
              std::swap(moe->down[0], moe->down[1]);
            }
          }};
}

inline Feature without_expert_norms() {
  return with_experts("norms of experts", [](MoeFfnSpec& moe) { moe.own_norm.eps = 10; });
}
inline Feature without_expert_scales() {
  return with_experts("scales of experts", [](MoeFfnSpec& moe) { moe.has_expert_scales = false; });
}
inline Feature without_head_norms_where_rotated() {
  return {"norms of rotated heads", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) attention(layer).head_norm = {};
          }};
}
inline Feature without_query_growth() {
  return {"growth of queries", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) layer.query_growth = {};
          }};
}

}  // namespace serval::testing
