#include "engine/model/architectures/windowed_experts.h"

#include <cmath>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/expert_fields.h"

namespace serval {
namespace {

// Every pattern-th layer, or those that layer_types names, sees everything and does not rotate.
void set_rotating_windows(const Fields& config, int window, int pattern, ModelSpec& spec) {
  const std::vector<bool> windowed = read_windowed(config, spec.num_layers(), pattern);
  for (int l = 0; l < spec.num_layers(); ++l)
    if (!windowed[l]) spec.layers[l].rope = kNoRope;
  set_windows(config, window, windowed, spec);
}

MoeFfnSpec read_shared_and_corrected(const Fields& config, const ModelSpec& spec, const DenseFfnSpec& dense, int shared_when_absent,
                                     std::string_view scale_field, double scale_when_absent) {
  MoeFfnSpec experts = read_experts(config, spec, dense);
  experts.shared_size = config.find_int("num_shared_experts", 0, kMaxExperts).value_or(shared_when_absent) * experts.intermediate_size;
  experts.has_correction = true;
  experts.rule = {.score = RoutingRule::Score::kSigmoid, .renormalise = true, .least_sum = 1e-20f};
  experts.rule.scale = static_cast<float>(config.find_positive(scale_field, 1e6).value_or(scale_when_absent));
  return experts;
}

// Trinity: norms before and behind the parts, and what was attended to is gated.
ModelSpec read_afmoe(const Fields& config) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false, .requires_head_dim = true});
  attention.head_norm = spec.final_norm = read_rms_norm(config, 1e-5);
  attention.has_gate = true;
  if (config.get_bool("attention_bias", false)) config.refuse("attention_bias", "must be false");
  if (config.get_bool("mup_enabled", false)) spec.embedding_scale = static_cast<float>(std::sqrt(double(spec.hidden_size)));
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions)};
  const DenseFfnSpec dense = read_gated_ffn(config);
  LayerSpec layer = pre_norm_layer(attention, dense, spec.final_norm);
  layer.mixer_post_norm = layer.ffn_post_norm = spec.final_norm;
  spec.layers.assign(spec.layers.size(), layer);
  const int pattern = config.find_int("global_attn_every_n_layers", 1, kMaxLayers).value_or(4);
  set_rotating_windows(config, read_window(config).value_or(1024), pattern, spec);
  const MoeFfnSpec experts = read_shared_and_corrected(config, spec, dense, 2, "route_scale", 1);
  const int num_dense = config.find_int("num_dense_layers", 0, kMaxLayers).value_or(1);
  std::vector<bool> has_experts;
  for (int l = 0; l < spec.num_layers(); ++l) has_experts.push_back(l >= num_dense);
  set_experts(experts, has_experts, spec);
  // What the reference takes for granted, and what is of training.
  config.ignore({"score_func", "route_norm", "n_group", "topk_group", "num_expert_groups", "num_limited_groups", "load_balance_coeff",
                 "use_grouped_mm"});
  return spec;
}

ModelSpec read_exaone_moe(const Fields& config) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size);
  attention.head_norm = spec.final_norm = read_rms_norm(config, 1e-5);
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions)};
  const DenseFfnSpec dense = read_gated_ffn(config);
  spec.layers.assign(spec.layers.size(), pre_norm_layer(attention, dense, spec.final_norm));
  const boost::json::value* const pattern = config.find("sliding_window_pattern");
  if (config.find("layer_types") == nullptr && pattern != nullptr && !pattern->is_number())
    config.refuse("layer_types", "is missing, and sliding_window_pattern is no number to tell them by");
  const int every = pattern != nullptr && pattern->is_number() ? *config.find_int("sliding_window_pattern", 1, kMaxLayers) : 4;
  set_rotating_windows(config, read_window(config).value_or(4096), every, spec);
  MoeFfnSpec experts = read_shared_and_corrected(config, spec, dense, 1, "routed_scaling_factor", 2.5);
  experts.rule.by_best_two = true;
  experts.rule.renormalise = config.get_bool("norm_topk_prob", true);
  read_expert_groups(config, experts);
  const int num_dense = config.find_int("first_k_dense_replace", 0, kMaxLayers).value_or(1);
  std::vector<bool> has_experts;
  for (int l = 0; l < spec.num_layers(); ++l) has_experts.push_back(l >= num_dense);
  set_experts(experts, read_mlp_layer_types(config, spec.num_layers()).value_or(has_experts), spec);
  // Layers that guess more tokens are named apart; the reference chooses so whatever these say.
  config.ignore({"num_nextn_predict_layers", "scoring_func", "topk_method", "is_moe_layer", "tf_legacy_loss"});
  return spec;
}

constexpr StoredName kAfmoeModules[] = {{"mixer_post_norm", "post_attention_layernorm"},
                                        {"post_attention_layernorm", "pre_mlp_layernorm"},
                                        {"ffn_post_norm", "post_mlp_layernorm"},
                                        {"mlp.gate.e_score_correction_bias", "mlp.expert_bias"},
                                        {"mlp.gate", "mlp.router.gate"}};
constexpr StoredName kExaoneModules[] = {{"mlp.gate.e_score_correction_bias", "mlp.e_score_correction_bias"}};
constexpr std::string_view kDraftLayers[] = {"mtp."};

}  // namespace

constexpr Architecture kAfmoe{
    "AfmoeForCausalLM", "afmoe", read_afmoe, {.modules = kAfmoeModules}, "Trinity Nano, Mini, Large", "afmoe"};
constexpr Architecture kExaoneMoe{"ExaoneMoeForCausalLM",
                                  "exaone_moe",
                                  read_exaone_moe,
                                  {.modules = kExaoneModules, .ignored = kDraftLayers},
                                  "K-EXAONE 236B-A23B",
                                  "exaone-moe"};

}  // namespace serval
