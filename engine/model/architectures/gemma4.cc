#include "engine/model/architectures/gemma4.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/model/architectures/composite.h"
#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/expert_fields.h"
#include "engine/model/architectures/shared_keys.h"
#include "engine/model/harmless_fields.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

// What the two generations of one architecture leave out of a configuration.
struct Defaults {
  int window;
  int per_layer_input;
};

void refuse_what_is_not_served(const Fields& config) {
  // Pictures alone are looked at both ways where it says vision.
  const std::string both_ways = config.find_string("use_bidirectional_attention").value_or("vision");
  if (both_ways != "vision")
    config.refuse("use_bidirectional_attention", in_quotes(both_ways) + " is not supported; supported is vision");
  config.ignore({"num_experts", "top_k_experts", "moe_intermediate_size", "hidden_act"});
}

void read_layer_inputs(const Fields& config, int width_when_absent, ModelSpec& spec) {
  const int vocab = config.find_int("vocab_size_per_layer_input", 1, kMaxVocab).value_or(spec.vocab_size);
  LayerInputsSpec& inputs = spec.layer_inputs;
  inputs.width = config.find_int("hidden_size_per_layer_input", 0, kMaxHidden).value_or(width_when_absent);
  if (!inputs.is_there()) return;
  if (vocab < spec.vocab_size) config.refuse("vocab_size_per_layer_input", "must be at least vocab_size");
  if (inputs.width % 8 != 0) config.refuse("hidden_size_per_layer_input", "must be a multiple of 8");
  inputs.vocab_size = vocab;
  inputs.num_layers = spec.num_layers();
  inputs.norm = spec.final_norm;
}

// Those of layers that see everything: global_head_dim and its like, or, as they are saved today, per_layer_config,
// by layer.
GqaSpec read_full_heads(const Fields& config, const GqaSpec& windowed) {
  GqaSpec heads = windowed;
  heads.has_value_matrix = !config.get_bool("attention_k_eq_v", false);
  heads.head_dim = config.find_int("global_head_dim", 8, kMaxHeadDim).value_or(std::min(512, kMaxHeadDim));
  const std::optional<int> kv_heads = config.find_int("num_global_key_value_heads", 1, kMaxHeads);
  if (kv_heads && !heads.has_value_matrix) heads.num_kv_heads = *kv_heads;
  if (const std::optional<Fields> layers = config.find_object("per_layer_config")) {
    for (const auto& [layer, unused] : layers->object()) {
      const Fields one = layers->get_object(layer);
      heads.head_dim = one.get_int("head_dim", 8, kMaxHeadDim);
      heads.num_kv_heads = one.find_int("num_key_value_heads", 1, kMaxHeads).value_or(windowed.num_kv_heads);
      refuse_unasked(one);
    }
  }
  if (heads.head_dim % 8 != 0 || heads.num_heads % heads.num_kv_heads != 0)
    config.refuse("global_head_dim", "must be a multiple of 8, and num_attention_heads one of the layer's key-value heads");
  return heads;
}

// The feed-forward part as the expert that all rows share, beside others (26B-A4B).
MoeFfnSpec beside_experts(const Fields& config, const DenseFfnSpec& ffn, const ModelSpec& frame) {
  MoeFfnSpec experts = read_experts(config, frame, ffn, {.count = {"num_experts"}, .per_row = "top_k_experts"});
  experts.rule.least_sum = std::numeric_limits<float>::min();  // shares of all, as the reference has them
  experts.shared_size = ffn.intermediate_size;
  experts.own_norm = frame.final_norm;
  experts.has_expert_scales = true;
  return experts;
}

ModelSpec read_text(const Fields& config, const Defaults& defaults) {
  constexpr bool kTiesWhenAbsent = true;
  refuse_what_is_not_served(config);
  ModelSpec spec = read_frame(config, kTiesWhenAbsent);
  spec.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(spec.hidden_size)));
  spec.final_logit_cap = static_cast<float>(config.find_positive("final_logit_softcapping", 1e6).value_or(0));
  spec.final_norm = read_rms_norm(config);
  read_layer_inputs(config, defaults.per_layer_input, spec);

  GqaSpec windowed_heads = read_heads(config, spec.hidden_size, {.requires_head_dim = true, .bias = false});
  windowed_heads.scale = 1;
  windowed_heads.head_norm = spec.final_norm;
  windowed_heads.value_norm = {.kind = NormSpec::Kind::kRms, .eps = spec.final_norm.eps, .has_weight = false};
  const GqaSpec full_heads = read_full_heads(config, windowed_heads);

  if (config.find("rope_parameters") == nullptr) config.refuse("rope_parameters", "is missing");
  // The last layer sees everything whatever it is called.
  std::vector<bool> windowed = read_windowed(config, spec.num_layers(), 6);
  windowed.back() = false;
  spec.ropes = read_ropes_by_kind(config, spec.max_positions, {full_heads.head_dim, {.theta = 1e6}},
                                  {windowed_heads.head_dim, {.theta = 1e4}});

  const std::vector<std::optional<int>> sources = read_key_sources(config, windowed, 0);
  const bool is_double = config.get_bool("use_double_wide_mlp", false);  // without keys
  const bool has_experts = config.get_bool("enable_moe_block", false);
  const DenseFfnSpec usual_ffn = read_gated_ffn(config, "hidden_activation", "gelu_pytorch_tanh");
  for (int l = 0; l < spec.num_layers(); ++l) {
    GqaSpec heads = windowed[l] ? windowed_heads : full_heads;
    DenseFfnSpec ffn = usual_ffn;
    heads.has_keys = !sources[l];
    if (is_double && sources[l]) ffn.intermediate_size *= 2;
    LayerSpec& layer = spec.layers[l] = pre_norm_layer(heads, ffn, spec.final_norm);
    if (has_experts) layer.ffn = beside_experts(config, ffn, spec);
    layer.mixer_post_norm = layer.ffn_post_norm = spec.final_norm;
    layer.has_output_scale = true;
    layer.rope = windowed[l] ? kWindowedRope : kFullRope;
    layer.kv_source = sources[l];
  }
  set_windows(config, read_window(config).value_or(defaults.window), windowed, spec);
  leave_shared_keys(sources, spec);
  return spec;
}

// What composites leave out.
boost::json::object text_defaults() {
  return {
      {"vocab_size", 262144},
      {"hidden_size", 2304},
      {"intermediate_size", 9216},
      {"num_hidden_layers", 30},
      {"num_attention_heads", 8},
      {"num_key_value_heads", 4},
      {"head_dim", 256},
      {"max_position_embeddings", 131072},
      {"rope_parameters",
       {{"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 10000.0}}},
        {"full_attention",
         {{"rope_type", "proportional"}, {"partial_rotary_factor", 0.25}, {"rope_theta", 1000000.0}}}}}};
}

ModelSpec read_gemma4(const Fields& config) {
  return read_text(config, {.window = 512, .per_layer_input = 256});
}
ModelSpec read_gemma4_composite(const Fields& config) {
  return read_text_part(config, text_defaults(), read_gemma4);
}
ModelSpec read_unified(const Fields& config) {
  return read_text(config, {.window = 1024, .per_layer_input = 0});
}
ModelSpec read_unified_composite(const Fields& config) {
  return read_text_part(config, text_defaults(), read_unified);
}

constexpr StoredName kModules[] = {{"mixer_post_norm", "post_attention_layernorm"},
                                   {"post_attention_layernorm", "pre_feedforward_layernorm"},
                                   {"ffn_post_norm", "post_feedforward_layernorm"},
                                   {"mlp.gate", "router.proj"},
                                   {"mlp.gate.", "router."},
                                   {"mlp.experts_norm", "pre_feedforward_layernorm_2"},
                                   {"mlp.experts_post_norm", "post_feedforward_layernorm_2"},
                                   {"mlp.shared_post_norm", "post_feedforward_layernorm_1"},
                                   {"mlp.experts.*.gate_proj", "experts.gate_up_proj"},
                                   {"mlp.experts.*.up_proj", "experts.gate_up_proj"},
                                   {"mlp.experts.*.down_proj", "experts.down_proj"},
                                   {"mlp.shared_experts.", "mlp."}};

constexpr TensorNames with_unused(TensorNames names) {
  names.ignored = kNotTextOrKeys;
  return names;
}

}  // namespace

constexpr Architecture kGemma4{"Gemma4ForCausalLM",   "gemma4_text",          read_gemma4,
                               with_unused({.modules = kModules}), "Gemma 4 without pictures", "gemma4 gemma4-e gemma4-moe"};
constexpr Architecture kGemma4Composite{"Gemma4ForConditionalGeneration",
                                        "gemma4",
                                        read_gemma4_composite,
                                        with_unused(text_names(kModules)),
                                        "Gemma 4 E2B, E4B, 26B-A4B, 31B: text",
                                        "gemma4-composite"};
constexpr Architecture kGemma4Unified{"Gemma4UnifiedForConditionalGeneration",
                                      "gemma4_unified",
                                      read_unified_composite,
                                      text_names(kModules),
                                      "Gemma 4 12B: text",
                                      "gemma4-unified"};

}  // namespace serval
