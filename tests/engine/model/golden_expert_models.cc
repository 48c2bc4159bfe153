// Models with routed experts, and latent attention.
#include "tests/engine/model/golden_expert_features.h"
#include "tests/engine/model/golden_features.h"

namespace serval::testing {

std::vector<ModelCase> expert_models() {
  return {
      {"mixtral", {without_renormalised_routing(), with_the_best_expert_alone(), with_experts_exchanged()}},
      {"mixtral-bf16",
       {with_the_best_expert_alone(), with_experts_exchanged(), without_window(), with_window_off_by_one()}},
      {"qwen2-moe",
       {with_renormalised_routing(), with_the_best_expert_alone(), with_experts_exchanged(), without_shared_expert(),
        without_shared_gate(), without_bias("qkv", qkv)}},
      {"qwen3-moe",
       {without_renormalised_routing(), with_the_best_expert_alone(), with_experts_exchanged(), without_qk_norm(),
        without_rotation()}},
      {"deepseek-v2",
       {without_expert_groups(), without_routing_scale(), without_shared_expert(), without_rotation()}},
      {"deepseek-v2-lite",
       {without_shared_expert(), with_the_best_expert_alone(), without_rope_scaling(), without_amplitude(), without_score_scale()}},
      {"deepseek-v3",
       {without_correction(), without_expert_groups(), without_renormalised_routing(), without_routing_scale(),
        with_softmax_scores(), without_rope_scaling(), without_score_scale()}},
      {"kimi-k25", {without_correction(), without_shared_expert(), without_rotation()}},
      {"glm4-moe-lite", {without_correction(), without_shared_expert(), without_routing_scale(), without_rotation()}},
      {"glm4-moe",
       {without_correction(), without_shared_expert(), without_routing_scale(), without_qk_norm(), with_whole_heads_rotated(),
        without_bias("qkv", qkv)}},
      {"dots1",
       {without_correction(), without_shared_expert(), without_renormalised_routing(), without_qk_norm(), without_window(),
        with_window_off_by_one(), without_layer_assignment()}},
      {"minimax-m2",
       {without_correction(), without_renormalised_routing(), with_softmax_scores(), without_qk_norm(),
        with_whole_heads_rotated()}},
      {"granite-moe",
       {without_residual_scale(), without_logit_scale(), without_renormalised_routing(), with_the_best_expert_alone(),
        with_experts_exchanged()}},
      {"granite-moe-shared", {without_shared_expert(), without_renormalised_routing(), with_experts_exchanged()}},
      {"olmoe", {with_renormalised_routing(), with_the_best_expert_alone(), with_experts_exchanged(), without_qk_norm()}},
      {"hunyuan-moe",
       {without_renormalised_routing(), with_the_best_expert_alone(), without_shared_expert(), without_qk_norm(),
        with_norms_before_rotation()}},
      {"hy3", {without_correction(), without_shared_expert(), without_routing_scale(), without_qk_norm()}},
      {"minicpm3", {without_residual_scale(), without_logit_scale(), without_embedding_scale(), without_rope_scaling()}},
      {"qwen3-vl-moe", {without_renormalised_routing(), with_experts_exchanged(), without_qk_norm(), without_rotation()}},
      {"phimoe",
       {with_experts("nearness", [](MoeFfnSpec& moe) { moe.rule.nearness = 1e6f; }), with_the_best_expert_alone(),
        with_experts_exchanged(), without_means(), without_bias("qkv", qkv), without_amplitude(), without_rope_scaling()}},
      {"ernie4.5-moe",
       {without_correction(), without_shared_expert(), with_experts_exchanged(), without_bias("qkv", qkv), without_rotation(),
        with_experts("least sum of weights", [](MoeFfnSpec& moe) { moe.rule.least_sum = 0; })}},
      {"gpt-oss",
       {without_renormalised_routing(), with_the_best_expert_alone(), with_experts_exchanged(), without_sinks(),
        without_gate_limit(), without_up_offset(), with_experts_without_bias(), without_bias("qkv", qkv),
        without_bias("output", output), without_rope_scaling(), without_amplitude(), without_window(),
        with_window_off_by_one(), without_layer_assignment()}},
  };
}

}  // namespace serval::testing
