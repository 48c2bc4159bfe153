#include "engine/model/architectures/gemma.h"

#include <cmath>

#include "engine/model/architectures/composite.h"
#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/harmless_fields.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

ModelSpec read_outside(const Fields& config) {
  constexpr bool kTiesWhenAbsent = true;
  ModelSpec spec = read_frame(config, kTiesWhenAbsent);
  spec.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(spec.hidden_size)));
  spec.final_logit_cap = static_cast<float>(config.find_positive("final_logit_softcapping", 1e6).value_or(0));
  spec.final_norm = read_rms_norm(config);
  spec.final_norm.offset = 1;
  return spec;
}

GqaSpec read_attention(const Fields& config, const ModelSpec& spec) {
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_head_dim = true});
  const std::optional<double> scalar = config.find_positive("query_pre_attn_scalar", 1e6);
  if (!scalar) config.refuse("query_pre_attn_scalar", "is missing");
  attention.scale = static_cast<float>(1 / std::sqrt(*scalar));
  return attention;
}

void set_layers(const Fields& config, const GqaSpec& attention, const std::vector<bool>& windowed,
                ModelSpec& spec) {
  config.find("hidden_act");  // beside hidden_activation the reference does not look at it
  LayerSpec layer = pre_norm_layer(
      attention, read_gated_ffn(config, "hidden_activation", "gelu_pytorch_tanh"), spec.final_norm);
  layer.mixer_post_norm = layer.ffn_post_norm = spec.final_norm;
  spec.layers.assign(spec.layers.size(), layer);
  const std::optional<int> window = read_window(config);
  if (!window) config.refuse("sliding_window", "is missing");
  set_windows(config, window, windowed, spec);
}

// Norms before the parts alone, and no window.
ModelSpec read_gemma(const Fields& config) {
  ModelSpec spec = read_outside(config);
  const GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_head_dim = true, .bias = false});
  DenseFfnSpec ffn;
  ffn.intermediate_size = config.get_int("intermediate_size", 1, kMaxIntermediate);
  // The first configurations say gelu and mean this; a hidden_activation beside it is not looked at.
  ffn.activation = Activation::kGeluTanh;
  const std::string act = config.find_string("hidden_act").value_or("gelu_pytorch_tanh");
  if (act != "gelu" && act != "gelu_pytorch_tanh")
    config.refuse("hidden_act", in_quotes(act) + " is not supported; supported are gelu, gelu_pytorch_tanh");
  config.find("hidden_activation");
  set_uniform_layers(config, pre_norm_layer(attention, ffn, spec.final_norm),
                     read_rope(config, attention.head_dim, spec.max_positions), spec);
  return spec;
}

ModelSpec read_gemma2(const Fields& config) {
  ModelSpec spec = read_outside(config);
  GqaSpec attention = read_attention(config, spec);
  const std::optional<double> cap = config.find_positive("attn_logit_softcapping", 1e6);
  // To the reference their absence means other values than null does.
  if (!cap) config.refuse("attn_logit_softcapping", "is missing");
  if (spec.final_logit_cap == 0) config.refuse("final_logit_softcapping", "is missing");
  attention.soft_cap = static_cast<float>(*cap);
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions)};
  set_layers(config, attention, read_windowed(config, spec.num_layers(), 2), spec);
  return spec;
}

// Gemma 2 without norms behind the parts.
ModelSpec read_vault_gemma(const Fields& config) {
  ModelSpec spec = read_gemma2(config);
  for (LayerSpec& layer : spec.layers) layer.mixer_post_norm = layer.ffn_post_norm = {};
  return spec;
}

ModelSpec read_gemma3(const Fields& config) {
  ModelSpec spec = read_outside(config);
  GqaSpec attention = read_attention(config, spec);
  attention.head_norm = spec.final_norm;
  const double local_theta = find_theta(config, "rope_local_base_freq").value_or(1e4);
  spec.ropes = read_ropes_by_kind(config, spec.max_positions, {attention.head_dim, {.theta = 1e6}},
                                  {attention.head_dim, {.theta = local_theta}});
  const int pattern = config.find_int("sliding_window_pattern", 1, kMaxLayers)
                          .value_or(config.find_int("_sliding_window_pattern", 1, kMaxLayers).value_or(6));
  const std::vector<bool> windowed = read_windowed(config, spec.num_layers(), pattern);
  set_layers(config, attention, windowed, spec);
  for (int l = 0; l < spec.num_layers(); ++l) spec.layers[l].rope = windowed[l] ? kWindowedRope : kFullRope;
  return spec;
}

ModelSpec read_gemma3_composite(const Fields& config) {
  // Published composites leave out what has the reference's value.
  const boost::json::object defaults = {
      {"vocab_size", 262208},  {"num_attention_heads", 8},          {"num_key_value_heads", 4},
      {"head_dim", 256},       {"max_position_embeddings", 131072}, {"query_pre_attn_scalar", 256},
      {"sliding_window", 4096}};
  return read_text_part(config, defaults, read_gemma3);
}

constexpr StoredName kModules[] = {{"mixer_post_norm", "post_attention_layernorm"},
                                   {"post_attention_layernorm", "pre_feedforward_layernorm"},
                                   {"ffn_post_norm", "post_feedforward_layernorm"}};

}  // namespace

constexpr Architecture kGemma{"GemmaForCausalLM", "gemma", read_gemma, {}, "Gemma 2B, 7B; CodeGemma", "gemma"};
constexpr Architecture kGemma2{"Gemma2ForCausalLM",   "gemma2",  read_gemma2,
                               {.modules = kModules}, "Gemma 2", "gemma2-bf16"};
constexpr Architecture kVaultGemma{"VaultGemmaForCausalLM", "vaultgemma",   read_vault_gemma,
                                   {.modules = kModules},   "VaultGemma 1B", "vaultgemma"};
constexpr Architecture kGemma3{"Gemma3ForCausalLM",   "gemma3_text",      read_gemma3,
                               {.modules = kModules}, "Gemma 3 270M, 1B", "gemma3 gemma3-bf16"};
constexpr Architecture kGemma3Composite{"Gemma3ForConditionalGeneration",
                                        "gemma3",
                                        read_gemma3_composite,
                                        text_names(kModules),
                                        "Gemma 3 4B, 12B, 27B; MedGemma: text",
                                        "gemma3-composite"};

}  // namespace serval
