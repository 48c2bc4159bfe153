#include "engine/model/architectures/corrected_experts.h"

#include <optional>
#include <vector>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/expert_fields.h"

namespace serval {
namespace {

ModelSpec read_glm4_moe(const Fields& config) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size);
  attention.qkv_bias = config.get_bool("attention_bias", false);
  spec.final_norm = read_rms_norm(config);
  if (config.get_bool("use_qk_norm", false)) attention.head_norm = spec.final_norm;
  const RopeSpec rope = read_rope(config, attention.head_dim, spec.max_positions, {.part = 0.5});
  set_uniform_layers(config, pre_norm_layer(attention, read_gated_ffn(config), spec.final_norm), rope, spec);
  set_experts_behind_dense(config, read_corrected_experts(config, spec), 1, spec);
  return spec;
}

ModelSpec read_dots1(const Fields& config) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size, {.bias = false});
  attention.head_norm = spec.final_norm = read_rms_norm(config);
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions)};
  spec.layers.assign(spec.layers.size(), pre_norm_layer(attention, read_gated_ffn(config), spec.final_norm));
  // Behind the first max_window_layers, where layer_types says nothing else.
  const std::optional<int> window = read_window(config);
  const int first = config.find_int("max_window_layers", 0, kMaxLayers).value_or(spec.num_layers());
  std::vector<bool> windowed;
  for (int l = 0; l < spec.num_layers(); ++l) windowed.push_back(window && l >= first);
  set_windows(config, window, read_layer_types(config, spec.num_layers()).value_or(windowed), spec);
  config.find_string("scoring_func");
  config.find_string("topk_method");
  config.find_int("moe_layer_freq", 1, 1);
  MoeFfnSpec experts = read_corrected_experts(config, spec);
  experts.rule.renormalise = config.get_bool("norm_topk_prob", false);
  set_experts_behind_dense(config, experts, 0, spec);
  return spec;
}

// Hy3: the shared expert and the correction under other names.
ModelSpec read_hy3(const Fields& config) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size, {.bias = false});
  attention.head_norm = spec.final_norm = read_rms_norm(config, 1e-5);
  DenseFfnSpec ffn = read_gated_ffn(config);
  ffn.bias = config.get_bool("mlp_bias", false);
  set_uniform_layers(config, pre_norm_layer(attention, ffn, spec.final_norm),
                     read_rope(config, attention.head_dim, spec.max_positions), spec);
  MoeFfnSpec experts = read_experts(config, spec, ffn);
  experts.shared_size = config.find_int("num_shared_experts", 0, kMaxExperts).value_or(1) * experts.intermediate_size;
  experts.shared_bias = ffn.bias;
  experts.has_correction = true;
  experts.rule.score = RoutingRule::Score::kSigmoid;
  experts.rule.least_sum = 1e-20f;
  experts.rule.scale = static_cast<float>(config.find_positive("router_scaling_factor", 1e6).value_or(2.826));
  config.ignore({"enable_moe_fp32_combine"});
  const std::optional<std::vector<bool>> sparse = read_mlp_layer_types(config, spec.num_layers());
  if (sparse) {
    set_experts(experts, *sparse, spec);
    config.find_int("first_k_dense_replace", 0, kMaxLayers);
    read_draft_layers(config, spec);
  } else {
    set_experts_behind_dense(config, experts, 1, spec);
  }
  return spec;
}

// A norm over all heads at once, rotary_dim of each head turn, and a mixture in every layer.
ModelSpec read_minimax_m2(const Fields& config) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_head_dim = true});
  attention.head_norm = spec.final_norm = read_rms_norm(config);
  attention.head_norm_place = HeadNormPlace::kAllHeads;
  const std::optional<int> rotary_dim = config.find_int("rotary_dim", 2, attention.head_dim);
  const RopeSpec rope = read_rope(
      config, attention.head_dim, spec.max_positions,
      {.part = rotary_dim ? static_cast<double>(*rotary_dim) / attention.head_dim : 1});
  const DenseFfnSpec expert = read_gated_ffn(config);
  set_uniform_layers(config, pre_norm_layer(attention, expert, spec.final_norm), rope, spec);
  MoeFfnSpec experts = read_experts(config, spec, expert, {.count = {"num_local_experts"}, .width = "intermediate_size"});
  experts.has_correction = true;
  experts.rule.score = RoutingRule::Score::kSigmoid;
  set_experts(experts, std::vector<bool>(spec.layers.size(), true), spec);
  leave_draft_layers(config.find_int("num_mtp_modules", 0, kMaxLayers).value_or(0), spec);
  // What the reference takes for granted.
  config.ignore({"mtp_transformer_layers", "use_mtp", "use_qk_norm", "qk_norm_type", "use_routing_bias", "scoring_func",
                 "attn_type_list"});
  config.find_int("shared_intermediate_size", 0, 0);
  return spec;
}

// A rotation of neighbouring pairs; probabilities with a correction of the choice.
ModelSpec read_ernie(const Fields& config) {
  constexpr bool kTiesWhenAbsent = true;
  ModelSpec spec = read_frame(config, kTiesWhenAbsent);
  GqaSpec attention = read_heads(config, spec.hidden_size);
  DenseFfnSpec ffn = read_gated_ffn(config);
  attention.qkv_bias = attention.output_bias = ffn.bias = spec.head_bias = config.get_bool("use_bias", false);
  attention.interleaved_dims = attention.head_dim;
  spec.final_norm = read_rms_norm(config, 1e-5);
  set_uniform_layers(config, pre_norm_layer(attention, ffn, spec.final_norm),
                     read_rope(config, attention.head_dim, spec.max_positions, {.theta = 500000}), spec);
  return spec;
}

ModelSpec read_ernie_moe(const Fields& config) {
  ModelSpec spec = read_ernie(config);
  MoeFfnSpec experts =
      read_experts(config, spec, read_gated_ffn(config), {.count = {"moe_num_experts"}, .per_row = "moe_k"});
  experts.shared_size =
      config.find_int("moe_num_shared_experts", 0, kMaxExperts).value_or(2) * experts.intermediate_size;
  experts.shared_bias = config.get_bool("use_bias", false);
  experts.has_correction = true;
  experts.rule.least_sum = static_cast<float>(config.find_positive("moe_norm_min", 1).value_or(1e-12));
  const int num_layers = spec.num_layers();
  const int interval = config.find_int("moe_layer_interval", 1, kMaxLayers).value_or(1);
  const int first = config.find_int("moe_layer_start_index", 0, kMaxLayers).value_or(1);
  const int last = config.find_int("moe_layer_end_index", -1, kMaxLayers).value_or(-1);
  std::vector<bool> has_experts;
  for (int l = 0; l < num_layers; ++l)
    has_experts.push_back((l + 1) % interval == 0 && l >= first && (last < 0 || l <= last));
  set_experts(experts, has_experts, spec);
  config.find_int("num_nextn_predict_layers", 0, kMaxLayers);  // of tensors that are named apart
  config.ignore({"moe_capacity", "moe_gate", "moe_use_aux_free", "moe_gate_act", "moe_dropout_prob"});
  return spec;
}

constexpr StoredName kErnieModules[] = {{"mlp.gate.e_score_correction_bias", "mlp.moe_statics.e_score_correction_bias"}};
constexpr StoredName kHy3Modules[] = {{"mlp.gate.e_score_correction_bias", "mlp.expert_bias"},
                                      {"mlp.gate", "mlp.router.gate"},
                                      {"mlp.shared_experts.gate_proj", "mlp.shared_mlp.gate_proj"},
                                      {"mlp.shared_experts.up_proj", "mlp.shared_mlp.up_proj"},
                                      {"mlp.shared_experts.down_proj", "mlp.shared_mlp.down_proj"}};
constexpr std::string_view kGuesses[] = {"model.mtp_"};

}  // namespace

constexpr Architecture kErnieMoe{"Ernie4_5_MoeForCausalLM",
                                 "ernie4_5_moe",
                                 read_ernie_moe,
                                 {.modules = kErnieModules, .ignored = kGuesses},
                                 "ERNIE 4.5 21B-A3B, 300B-A47B",
                                 "ernie4.5-moe"};
constexpr Architecture kHy3{"HYV3ForCausalLM", "hy_v3", read_hy3, {.modules = kHy3Modules}, "Hy3", "hy3"};
constexpr Architecture kGlm4Moe{
    "Glm4MoeForCausalLM", "glm4_moe", read_glm4_moe, {}, "GLM-4.5, 4.5-Air, 4.6, 4.7", "glm4-moe"};
constexpr Architecture kDots1{"Dots1ForCausalLM", "dots1", read_dots1, {}, "dots.llm1", "dots1"};
constexpr Architecture kMiniMaxM2{"MiniMaxM2ForCausalLM",
                                  "minimax_m2",
                                  read_minimax_m2,
                                  {.modules = kMixtralExperts},
                                  "MiniMax M2, M2.5, M2.7",
                                  "minimax-m2"};

}  // namespace serval
