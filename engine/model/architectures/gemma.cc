#include "engine/model/architectures/gemma.h"

#include <cmath>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/harmless_fields.h"

namespace serval {
namespace {

constexpr int kGlobal = 0, kLocal = 1;  // rotations

// layer_types, or else every sliding_window_pattern-th layer sees everything.
std::vector<bool> read_windowed(const Fields& config, int num_layers) {
  const int pattern = config.find_int("sliding_window_pattern", 1, kMaxLayers)
                          .value_or(config.find_int("_sliding_window_pattern", 1, kMaxLayers).value_or(6));
  std::vector<bool> windowed;
  for (int l = 0; l < num_layers; ++l) windowed.push_back((l + 1) % pattern != 0);
  return read_layer_types(config, num_layers).value_or(windowed);
}

// Two spellings: an object of rope_parameters for each kind of layer; or rope_theta and rope_scaling for
// those that see everything and rope_local_base_freq for the others.
std::vector<RopeSpec> read_ropes(const Fields& config, int head_dim, int max_positions) {
  constexpr double kGlobalTheta = 1e6, kLocalTheta = 1e4;
  const double local_theta = find_theta(config, "rope_local_base_freq").value_or(kLocalTheta);
  const double global_theta = find_theta(config, "rope_theta").value_or(kGlobalTheta);
  std::vector<RopeSpec> ropes(2);
  ropes[kGlobal] = {.theta = global_theta, .scaling = {}, .rotary_dim = head_dim};
  ropes[kLocal] = {.theta = local_theta, .scaling = {}, .rotary_dim = head_dim};
  if (const std::optional<Fields> scaling = config.find_object("rope_scaling")) {
    ropes[kGlobal] = read_rope_object(config, *scaling, global_theta, head_dim, max_positions);
  }
  if (const std::optional<Fields> parameters = config.find_object("rope_parameters")) {
    if (const std::optional<Fields> global = parameters->find_object("full_attention"))
      ropes[kGlobal] = read_rope_object(config, *global, global_theta, head_dim, max_positions);
    if (const std::optional<Fields> local = parameters->find_object("sliding_attention"))
      ropes[kLocal] = read_rope_object(config, *local, local_theta, head_dim, max_positions);
    refuse_unasked(*parameters);
  }
  return ropes;
}

ModelSpec read_gemma3(const Fields& config) {
  constexpr bool kTiesWhenAbsent = true;
  ModelSpec spec = read_frame(config, kTiesWhenAbsent);
  spec.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(spec.hidden_size)));
  spec.final_logit_cap = static_cast<float>(config.find_positive("final_logit_softcapping", 1e6).value_or(0));
  spec.final_norm = read_rms_norm(config);
  spec.final_norm.offset = 1;

  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_head_dim = true});
  attention.head_norm = spec.final_norm;
  const std::optional<double> scalar = config.find_positive("query_pre_attn_scalar", 1e6);
  if (!scalar) config.refuse("query_pre_attn_scalar", "is missing");
  attention.scale = static_cast<float>(1 / std::sqrt(*scalar));
  config.find("hidden_act");  // beside hidden_activation the reference does not look at it
  LayerSpec layer = pre_norm_layer(
      attention, read_gated_ffn(config, "hidden_activation", "gelu_pytorch_tanh"), spec.final_norm);
  layer.mixer_post_norm = layer.ffn_post_norm = spec.final_norm;
  spec.layers.assign(spec.layers.size(), layer);

  spec.ropes = read_ropes(config, attention.head_dim, spec.max_positions);
  const std::vector<bool> windowed = read_windowed(config, spec.num_layers());
  for (int l = 0; l < spec.num_layers(); ++l) spec.layers[l].rope = windowed[l] ? kLocal : kGlobal;
  const std::optional<int> window = read_window(config);
  if (!window) config.refuse("sliding_window", "is missing");
  set_windows(config, window, windowed, spec);
  return spec;
}

constexpr StoredName kModules[] = {{"mixer_post_norm", "post_attention_layernorm"},
                                   {"post_attention_layernorm", "pre_feedforward_layernorm"},
                                   {"ffn_post_norm", "post_feedforward_layernorm"}};

}  // namespace

constexpr Architecture kGemma3{"Gemma3ForCausalLM", "gemma3_text", read_gemma3, {.modules = kModules}};

}  // namespace serval
