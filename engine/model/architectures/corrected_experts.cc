#include "engine/model/architectures/corrected_experts.h"

#include <optional>
#include <string>
#include <string_view>
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

// No norms of heads, and experts in every layer.
ModelSpec read_solar_open(const Fields& config) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_head_dim = true});
  attention.qkv_bias = config.get_bool("attention_bias", false);
  spec.final_norm = read_rms_norm(config, 1e-5);
  DenseFfnSpec expert;
  expert.activation = read_activation(config, "hidden_act", "silu");
  set_uniform_layers(config, pre_norm_layer(attention, expert, spec.final_norm),
                     read_rope(config, attention.head_dim, spec.max_positions, {.theta = 1e6}), spec);
  MoeFfnSpec experts = read_experts(config, spec, expert);
  experts.shared_size = config.find_int("n_shared_experts", 0, kMaxExperts).value_or(1) * experts.intermediate_size;
  read_corrected_routing(config, experts);
  set_experts(experts, std::vector<bool>(spec.layers.size(), true), spec);
  // What the reference does not look at.
  config.ignore({"intermediate_size", "first_k_dense_replace", "use_qk_norm", "moe_layer_freq"});
  read_draft_layers(config, spec);
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

// Values that are narrower than keys; in layers with a window twice the heads of keys, and sinks.
ModelSpec read_mimo_v2(const Fields& config) {
  ModelSpec spec = read_frame(config);
  spec.final_norm = read_rms_norm(config, config.find_positive("layernorm_epsilon", 1).value_or(1e-5));
  GqaSpec full = read_heads(config, spec.hidden_size, {.requires_head_dim = true});
  full.qkv_bias = config.get_bool("attention_bias", false);
  full.value_dim = config.find_int("v_head_dim", 8, full.head_dim).value_or(128);
  if (full.value_dim % 8 != 0) config.refuse("v_head_dim", "must be a multiple of 8");
  if (full.value_dim == full.head_dim) full.value_dim = 0;
  GqaSpec windowed = full;
  windowed.num_kv_heads = 2 * full.num_kv_heads;
  windowed.has_sinks = true;
  if (full.num_heads % windowed.num_kv_heads != 0)
    config.refuse("num_attention_heads", "must be a multiple of twice num_key_value_heads");
  // What published files say of windows again, which the reference takes for granted.
  const auto must_be = [&](std::string_view field, int value) {
    if (config.find_int(field, 0, kMaxHidden).value_or(value) != value)
      config.refuse(field, "must be " + std::to_string(value));
  };
  must_be("swa_num_attention_heads", windowed.num_heads);
  must_be("swa_num_key_value_heads", windowed.num_kv_heads);
  must_be("swa_head_dim", full.head_dim);
  must_be("swa_v_head_dim", full.value_width());
  if (config.get_bool("add_full_attention_sink_bias", false)) config.refuse("add_full_attention_sink_bias", "must be false");
  if (!config.get_bool("add_swa_attention_sink_bias", true)) config.refuse("add_swa_attention_sink_bias", "must be true");
  config.ignore({"attention_chunk_size", "hybrid_block_size", "sliding_window_size"});

  const int num_layers = spec.num_layers();
  std::vector<bool> is_windowed, has_experts;
  for (int l = 0; l < num_layers; ++l) {
    is_windowed.push_back(l > 0 && (l + 1) % 6 != 0);
    has_experts.push_back(l > 0);
  }
  const auto by_layer = [&](std::string_view field, std::vector<bool>& says) {
    const std::vector<int64_t> numbers = config.find_integers(field);
    if (numbers.empty()) return;
    if (numbers.size() != says.size()) config.refuse(field, "must have a number for each layer");
    says.assign(numbers.begin(), numbers.end());
  };
  by_layer("hybrid_layer_pattern", is_windowed);
  by_layer("moe_layer_freq", has_experts);
  is_windowed = read_layer_types(config, num_layers).value_or(is_windowed);
  has_experts = read_mlp_layer_types(config, num_layers).value_or(has_experts);

  const double part = config.find_number("partial_rotary_factor", 0.01, 1).value_or(0.334);
  spec.ropes = read_ropes_by_kind(
      config, spec.max_positions, {full.head_dim, {.theta = 5e6, .part = part}},
      {full.head_dim, {.theta = find_theta(config, "swa_rope_theta").value_or(1e4), .part = part}});
  const DenseFfnSpec dense = read_gated_ffn(config);
  const float value_scale = static_cast<float>(config.find_positive("attention_value_scale", 1e6).value_or(1));
  for (int l = 0; l < num_layers; ++l) {
    LayerSpec& layer = spec.layers[l] = pre_norm_layer(is_windowed[l] ? windowed : full, dense, spec.final_norm);
    layer.rope = is_windowed[l] ? kWindowedRope : kFullRope;
    layer.mixer_scale = value_scale;  // of values: of all that is made of them
  }
  // The published field counts the positions before a row's own.
  const std::optional<int> before = config.find_int("sliding_window_size", 1, kMaxPositions);
  set_windows(config, before ? *before + 1 : read_window(config).value_or(129), is_windowed, spec);
  read_window(config);
  MoeFfnSpec experts = read_experts(config, spec, dense, {.count = {"n_routed_experts", "num_local_experts"}});
  read_corrected_routing(config, experts);
  set_experts(experts, has_experts, spec);
  config.ignore({"scoring_func", "topk_method"});
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
constexpr std::string_view kGuesses[] = {"model.mtp_", "model.mtp."};
constexpr StoredName kMimoModules[] = {{"self_attn.sinks", "self_attn.attention_sink_bias"}};

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
constexpr Architecture kSolarOpen{
    "SolarOpenForCausalLM", "solar_open", read_solar_open, {}, "Solar Open 100B", "solar-open"};
constexpr Architecture kDots1{"Dots1ForCausalLM", "dots1", read_dots1, {}, "dots.llm1", "dots1"};
constexpr Architecture kMimoV2{"MiMoV2FlashForCausalLM",
                               "mimo_v2_flash",
                               read_mimo_v2,
                               {.modules = kMimoModules, .ignored = kGuesses},
                               "MiMo-V2-Flash",
                               "mimo-v2"};
constexpr Architecture kMiniMaxM2{"MiniMaxM2ForCausalLM",
                                  "minimax_m2",
                                  read_minimax_m2,
                                  {.modules = kMixtralExperts},
                                  "MiniMax M2, M2.5, M2.7",
                                  "minimax-m2"};

}  // namespace serval
