#include "engine/model/architectures/olmo.h"

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/expert_fields.h"

namespace serval {
namespace {

constexpr HeadRules kHeads = {.requires_num_kv_heads = false, .bias = false};

ModelSpec read_olmo(const Fields& config) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size, kHeads);
  attention.qkv_limit = static_cast<float>(config.find_positive("clip_qkv", 1e6).value_or(0));
  spec.final_norm = {.kind = NormSpec::Kind::kLayer, .eps = 1e-5f, .has_weight = false, .has_bias = false};
  set_uniform_layers(config, pre_norm_layer(attention, read_gated_ffn(config), spec.final_norm),
                     read_rope(config, attention.head_dim, spec.max_positions), spec);
  return spec;
}

GqaSpec read_normed_heads(const Fields& config, int hidden_size) {
  GqaSpec attention = read_heads(config, hidden_size, kHeads);
  attention.head_norm = read_rms_norm(config, 1e-5);
  attention.head_norm_place = HeadNormPlace::kAllHeads;
  return attention;
}

ModelSpec read_olmo2(const Fields& config) {
  ModelSpec spec = read_frame(config);
  const GqaSpec attention = read_normed_heads(config, spec.hidden_size);
  spec.final_norm = attention.head_norm;
  set_uniform_layers(config, post_norm_layer(attention, read_gated_ffn(config), spec.final_norm),
                     read_rope(config, attention.head_dim, spec.max_positions), spec);
  return spec;
}

// Of four layers one sees everything; the others have a window, and a rotation that nothing stretches.
ModelSpec read_olmo3(const Fields& config) {
  constexpr RopeRules kRope = {.theta = 500000};
  ModelSpec spec = read_frame(config);
  const GqaSpec attention = read_normed_heads(config, spec.hidden_size);
  spec.final_norm = attention.head_norm;
  spec.ropes = read_ropes_by_kind(config, spec.max_positions, {attention.head_dim, kRope}, {attention.head_dim, kRope});
  spec.layers.assign(spec.layers.size(),
                     post_norm_layer(attention, read_gated_ffn(config), spec.final_norm));
  const std::vector<bool> windowed = read_windowed(config, spec.num_layers(), 4);
  set_windows(config, read_window(config).value_or(4096), windowed, spec);
  for (int l = 0; l < spec.num_layers(); ++l)
    spec.layers[l].rope = windowed[l] ? kWindowedRope : kFullRope;
  return spec;
}

// Norms before the parts, one of them over all of q, another over all of k, and experts in every layer.
ModelSpec read_olmoe(const Fields& config) {
  ModelSpec spec = read_frame(config);
  const GqaSpec attention = read_normed_heads(config, spec.hidden_size);
  if (config.find("clip_qkv") != nullptr)
    config.refuse("clip_qkv", "would change the output and is not supported for this architecture");
  spec.final_norm = attention.head_norm;
  MoeFfnSpec experts = read_experts(config, spec, read_gated_ffn(config), {.width = "intermediate_size"});
  experts.rule.renormalise = config.get_bool("norm_topk_prob", false);
  set_uniform_layers(config, pre_norm_layer(attention, experts, spec.final_norm),
                     read_rope(config, attention.head_dim, spec.max_positions), spec);
  return spec;
}

}  // namespace

constexpr Architecture kOlmoe{"OlmoeForCausalLM", "olmoe", read_olmoe, {}, "OLMoE 1B-7B", "olmoe"};
constexpr Architecture kOlmo{"OlmoForCausalLM", "olmo", read_olmo, {}, "OLMo 1B, 7B", "olmo"};
constexpr Architecture kOlmo2{"Olmo2ForCausalLM",
                              "olmo2",
                              read_olmo2,
                              {.modules = kPostNormModules},
                              "OLMo 2 1B to 32B",
                              "olmo2"};
constexpr Architecture kOlmo3{"Olmo3ForCausalLM",
                              "olmo3",
                              read_olmo3,
                              {.modules = kPostNormModules},
                              "OLMo 3 7B, 32B",
                              "olmo3"};

}  // namespace serval
