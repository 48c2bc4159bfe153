#include "engine/model/architectures/small_llamas.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "engine/model/architectures/decoder_fields.h"

namespace serval {
namespace {

// The output projection has a switch of its own.
ModelSpec read_seed_oss(const Fields& config) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_head_dim = true, .bias = true});
  attention.output_bias = config.get_bool("attention_out_bias", false);
  DenseFfnSpec ffn = read_gated_ffn(config);
  ffn.bias = config.get_bool("mlp_bias", false);
  spec.final_norm = read_rms_norm(config);
  config.ignore({"residual_dropout"});
  set_uniform_layers(config, pre_norm_layer(attention, ffn, spec.final_norm),
                     read_rope(config, attention.head_dim, spec.max_positions), spec);
  return spec;
}

// No gate: the square of a ReLU.
ModelSpec read_arcee(const Fields& config) {
  ModelSpec spec = read_frame(config);
  const GqaSpec attention =
      read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false, .bias = false});
  const MlpFfnSpec ffn{.intermediate_size = config.get_int("intermediate_size", 1, kMaxIntermediate),
                       .activation = read_activation(config, "hidden_act", "relu2"),
                       .bias = config.get_bool("mlp_bias", false)};
  spec.final_norm = read_rms_norm(config, 1e-5);
  set_uniform_layers(config, pre_norm_layer(attention, ffn, spec.final_norm),
                     read_rope(config, attention.head_dim, spec.max_positions), spec);
  return spec;
}

// No gate: xIELU; and names of norms of its own.
ModelSpec read_apertus(const Fields& config) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false, .bias = false});
  attention.head_norm = spec.final_norm = read_rms_norm(config, 1e-5);
  if (!config.get_bool("qk_norm", true)) config.refuse("qk_norm", "must be true");
  if (config.get_bool("post_norm", false)) config.refuse("post_norm", "must be false");
  MlpFfnSpec ffn{.intermediate_size = config.get_int("intermediate_size", 1, kMaxIntermediate), .has_xielu = true};
  if (const std::string act = config.find_string("hidden_act").value_or("xielu"); act != "xielu") {
    ffn.has_xielu = false;
    ffn.activation = read_activation(config, "hidden_act", "xielu");
  }
  config.find_bool("mlp_bias");  // the reference has none, whatever it says
  set_uniform_layers(config, pre_norm_layer(attention, ffn, spec.final_norm),
                     read_rope(config, attention.head_dim, spec.max_positions, {.theta = 12e6}), spec);
  return spec;
}

// Pairs of neighbours rotate; one switch for all biases.
ModelSpec read_ernie(const Fields& config) {
  constexpr bool kTiesWhenAbsent = true;
  ModelSpec spec = read_frame(config, kTiesWhenAbsent);
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_head_dim = true});
  DenseFfnSpec ffn = read_gated_ffn(config);
  attention.qkv_bias = attention.output_bias = ffn.bias = config.get_bool("use_bias", false);
  attention.interleaved_dims = attention.head_dim;
  spec.final_norm = read_rms_norm(config, 1e-5);
  config.ignore({"compression_ratio"});
  set_uniform_layers(config, pre_norm_layer(attention, ffn, spec.final_norm),
                     read_rope(config, attention.head_dim, spec.max_positions, {.theta = 500000}), spec);
  return spec;
}

// Pairs of neighbours rotate.
ModelSpec read_helium(const Fields& config) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_head_dim = true, .bias = false});
  attention.output_bias = false;
  attention.interleaved_dims = attention.head_dim;
  DenseFfnSpec ffn = read_gated_ffn(config);
  ffn.bias = config.get_bool("mlp_bias", false);
  spec.final_norm = read_rms_norm(config, 1e-8);
  set_uniform_layers(config, pre_norm_layer(attention, ffn, spec.final_norm),
                     read_rope(config, attention.head_dim, spec.max_positions, {.theta = 100000}), spec);
  return spec;
}

// Some layers have no rotation.
ModelSpec read_smollm3(const Fields& config) {
  constexpr bool kTiesWhenAbsent = true;
  ModelSpec spec = read_frame(config, kTiesWhenAbsent);
  const GqaSpec attention =
      read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false, .bias = false});
  DenseFfnSpec ffn = read_gated_ffn(config);
  ffn.bias = config.get_bool("mlp_bias", false);
  spec.final_norm = read_rms_norm(config);
  config.ignore({"pretraining_tp"});
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions, {.theta = 2e6})};
  spec.layers.assign(spec.layers.size(), pre_norm_layer(attention, ffn, spec.final_norm));

  const int num_layers = spec.num_layers();
  const int interval = config.find_int("no_rope_layer_interval", 1, kMaxLayers).value_or(4);
  std::vector<int64_t> rotates = config.find_integers("no_rope_layers");
  if (rotates.empty())
    for (int l = 0; l < num_layers; ++l) rotates.push_back((l + 1) % interval != 0);
  if (static_cast<int>(rotates.size()) < num_layers)
    config.refuse("no_rope_layers", "must be an array of num_hidden_layers numbers");
  for (int l = 0; l < num_layers; ++l)
    if (rotates[l] == 0) spec.layers[l].rope = kNoRope;

  const std::optional<int> window = read_window(config);
  std::vector<bool> windowed(num_layers, false);
  if (config.get_bool("use_sliding_window", false) && window) {
    for (int l = 0; l < num_layers; ++l) windowed[l] = rotates[l] == 0;
    windowed = read_layer_types(config, num_layers).value_or(windowed);
  } else if (read_layer_types(config, num_layers).value_or(windowed) != windowed) {
    config.refuse("layer_types", "names sliding_attention although use_sliding_window is not true");
  }
  set_windows(config, window, windowed, spec);
  return spec;
}

// Heads are normalised after their rotation, whose base a fixed `alpha` stretches (NTK-aware scaling, bloc97 2023).
template <class ReadFfn>
ModelSpec read_hunyuan_with(const Fields& config, const ReadFfn& read_ffn) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false, .bias = false});
  attention.head_norm = read_rms_norm(config, 1e-5);
  attention.head_norm_place = HeadNormPlace::kEachRotatedHead;
  spec.final_norm = attention.head_norm;
  set_uniform_layers(config, pre_norm_layer(attention, read_ffn(spec), spec.final_norm),
                     read_rope(config, attention.head_dim, spec.max_positions), spec);
  config.ignore({"eod_token_id", "pretraining_tp", "use_qk_norm", "norm_type", "attention_head_dim", "org_vocab_size",
                 "pad_id", "use_rotary_pos_emb", "cla_share_factor"});
  return spec;
}

ModelSpec read_hunyuan(const Fields& config) {
  return read_hunyuan_with(config, [&](const ModelSpec&) { return read_gated_ffn(config); });
}

// A number, or one for each layer, all the same.
int get_uniform_int(const Fields& config, std::string_view field, int low, int high) {
  if (config.get(field).is_number()) return config.get_int(field, low, high);
  const std::vector<int64_t> numbers = config.find_integers(field);
  if (numbers.empty() || std::any_of(numbers.begin(), numbers.end(), [&](int64_t n) { return n != numbers[0]; }) ||
      numbers[0] < low || numbers[0] > high)
    config.refuse(field, "must be from " + std::to_string(low) + " to " + std::to_string(high) +
                             ", the same in all layers");
  return static_cast<int>(numbers[0]);
}

// Experts of the dense width in every layer, beside one that all rows share.
ModelSpec read_hunyuan_moe(const Fields& config) {
  config.ignore({"output_router_logits", "moe_drop_tokens", "moe_random_routing_dropped_token", "use_mixed_mlp_moe",
                 "moe_layer_num_skipped", "norm_type", "use_qk_norm", "attention_head_dim", "cla_share_factor",
                 "capacity_factor"});
  return read_hunyuan_with(config, [&](const ModelSpec& spec) {
    const DenseFfnSpec expert = read_gated_ffn(config);
    MoeFfnSpec ffn{.hidden_size = spec.hidden_size, .intermediate_size = expert.intermediate_size};
    ffn.activation = expert.activation;
    ffn.num_experts = get_uniform_int(config, config.find("num_experts") != nullptr ? "num_experts" : "num_local_experts", 1,
                                      kMaxExperts);
    ffn.top_k = get_uniform_int(config, "moe_topk", 1, std::min(ffn.num_experts, kMaxExpertsPerRow));
    ffn.shared_size = expert.intermediate_size;
    // What the reference does not ask for.
    for (const std::string_view field : {"num_shared_expert", "moe_intermediate_size"}) config.find(field);
    if (config.find("num_shared_expert") != nullptr && get_uniform_int(config, "num_shared_expert", 1, 1) != 1)
      config.refuse("num_shared_expert", "must be 1");
    if (config.find("moe_intermediate_size") != nullptr &&
        get_uniform_int(config, "moe_intermediate_size", 1, kMaxIntermediate) != ffn.intermediate_size)
      config.refuse("moe_intermediate_size", "must be intermediate_size");
    return ffn;
  });
}

// Norms behind the parts; where some layers have a window, the others have no rotation.
ModelSpec read_exaone4(const Fields& config) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size);
  attention.head_norm = spec.final_norm = read_rms_norm(config, 1e-5);
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions)};
  spec.layers.assign(spec.layers.size(),
                     post_norm_layer(attention, read_gated_ffn(config), spec.final_norm));
  const std::optional<int> window = read_window(config);
  std::optional<std::vector<bool>> windowed = read_layer_types(config, spec.num_layers());
  const boost::json::value* const pattern = config.find("sliding_window_pattern");  // layer_types says the same
  if (!windowed && window) {
    if (pattern == nullptr || !pattern->is_number())
      config.refuse("layer_types", "is missing, and sliding_window_pattern is no number to tell them by");
    windowed = read_windowed(config, spec.num_layers(),
                             *config.find_int("sliding_window_pattern", 1, kMaxLayers));
  }
  const std::vector<bool> has_window = windowed.value_or(std::vector<bool>(spec.layers.size(), false));
  if (!window && std::find(has_window.begin(), has_window.end(), true) != has_window.end())
    config.refuse("sliding_window", "is missing although layer_types names sliding_attention");
  for (int l = 0; l < spec.num_layers(); ++l)
    if (window && !has_window[l]) spec.layers[l].rope = kNoRope;
  set_windows(config, window, has_window, spec);
  return spec;
}

// Mistral whose layer_types may differ.
ModelSpec read_ministral(const Fields& config) {
  ModelSpec spec = read_frame(config);
  const GqaSpec attention = read_heads(config, spec.hidden_size);
  spec.final_norm = read_rms_norm(config);
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions)};
  spec.layers.assign(spec.layers.size(),
                     pre_norm_layer(attention, read_gated_ffn(config), spec.final_norm));
  const std::optional<int> window = read_window(config);
  const std::vector<bool> all(spec.layers.size(), window.has_value());
  const std::vector<bool> windowed = read_layer_types(config, spec.num_layers()).value_or(all);
  if (!window && windowed != all)
    config.refuse("sliding_window", "is missing although layer_types names sliding_attention");
  set_windows(config, window, windowed, spec);
  return spec;
}

// CWM: every fourth layer, from the first on, sees everything.
ModelSpec read_cwm(const Fields& config) {
  ModelSpec spec = read_frame(config);
  const GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_head_dim = true});
  DenseFfnSpec ffn = read_gated_ffn(config);
  ffn.bias = config.get_bool("mlp_bias", false);
  spec.final_norm = read_rms_norm(config, 1e-5);
  if (config.find("rope_scaling") == nullptr && config.find("rope_parameters") == nullptr)
    config.refuse("rope_parameters", "is missing");  // to the reference that means a rotation of its own
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions, {.theta = 1e6})};
  spec.layers.assign(spec.layers.size(), pre_norm_layer(attention, ffn, spec.final_norm));
  std::vector<bool> windowed;
  for (int l = 0; l < spec.num_layers(); ++l) windowed.push_back(l % 4 != 0);
  set_windows(config, read_window(config).value_or(8192), read_layer_types(config, spec.num_layers()).value_or(windowed), spec);
  config.find("attention_bias");  // the reference has none
  return spec;
}

constexpr StoredName kHunYuanMoeModules[] = {{"self_attn.q_norm", "self_attn.query_layernorm"},
                                             {"self_attn.k_norm", "self_attn.key_layernorm"},
                                             {"mlp.gate", "mlp.gate.wg"},
                                             {"mlp.shared_experts.gate_proj", "mlp.shared_mlp.gate_proj"},
                                             {"mlp.shared_experts.up_proj", "mlp.shared_mlp.up_proj"},
                                             {"mlp.shared_experts.down_proj", "mlp.shared_mlp.down_proj"}};
constexpr StoredName kHunYuanModules[] = {{"self_attn.q_norm", "self_attn.query_layernorm"},
                                          {"self_attn.k_norm", "self_attn.key_layernorm"}};

constexpr StoredName kApertusModules[] = {{"input_layernorm", "attention_layernorm"},
                                          {"post_attention_layernorm", "feedforward_layernorm"}};
// What is the same in all files.
constexpr std::string_view kApertusConstants[] = {".act_fn.beta", ".act_fn.eps"};

}  // namespace

constexpr Architecture kArcee{"ArceeForCausalLM", "arcee", read_arcee, {}, "AFM 4.5B", "arcee"};
constexpr Architecture kErnie45{"Ernie4_5ForCausalLM", "ernie4_5", read_ernie, {}, "ERNIE 4.5 0.3B", "ernie4.5", "Ernie4_5_ForCausalLM"};
constexpr Architecture kHelium{"HeliumForCausalLM", "helium", read_helium, {}, "Helium 1 2B", "helium"};

constexpr Architecture kSeedOss{"SeedOssForCausalLM", "seed_oss", read_seed_oss, {}, "Seed-OSS 36B", "seed-oss"};
constexpr Architecture kSmolLm3{"SmolLM3ForCausalLM", "smollm3", read_smollm3, {}, "SmolLM3 3B", "smollm3"};
constexpr Architecture kHunYuanMoe{"HunYuanMoEV1ForCausalLM",
                                   "hunyuan_v1_moe",
                                   read_hunyuan_moe,
                                   {.modules = kHunYuanMoeModules},
                                   "Hunyuan A13B",
                                   "hunyuan-moe"};
constexpr Architecture kHunYuanDense{"HunYuanDenseV1ForCausalLM",
                                     "hunyuan_v1_dense",
                                     read_hunyuan,
                                     {.modules = kHunYuanModules},
                                     "Hunyuan 0.5B to 7B",
                                     "hunyuan"};
constexpr Architecture kExaone4{"Exaone4ForCausalLM",
                                "exaone4",
                                read_exaone4,
                                {.modules = kPostNormModules},
                                "EXAONE 4.0 1.2B, 32B",
                                "exaone4 exaone4-bf16"};
constexpr Architecture kCwm{"CwmForCausalLM", "cwm", read_cwm, {}, "CWM 32B", "cwm"};
constexpr Architecture kMinistral{"MinistralForCausalLM", "ministral", read_ministral, {},
                                  "Ministral 8B",         "ministral"};

constexpr Architecture kApertus{"ApertusForCausalLM",
                                "apertus",
                                read_apertus,
                                {.modules = kApertusModules, .ignored = kApertusConstants},
                                "Apertus 8B, 70B",
                                "apertus"};

}  // namespace serval
