#include "engine/model/architectures/muse_glimmer.h"

#include <cmath>

#include "engine/model/architectures/composite.h"
#include "engine/model/architectures/decoder_fields.h"

namespace serval {
namespace {

float number_of(const Fields& config, std::string_view field, double when_absent) {
  return static_cast<float>(config.find_positive(field, 1e6).value_or(when_absent));
}

// Whether each layer rotates: by layer_rope_theta, in which 0 says no (other numbers are all the same to the
// reference), or else all but every fourth counted from the last.
std::vector<bool> read_rotating(const Fields& config, int num_layers) {
  std::vector<bool> rotating;
  for (int l = 0; l < num_layers; ++l) rotating.push_back((num_layers - 1 - l) % 4 != 0);
  const boost::json::array* const thetas = config.find_array("layer_rope_theta");
  if (thetas == nullptr) return rotating;
  if (static_cast<int>(thetas->size()) != num_layers)
    config.refuse("layer_rope_theta", "must be an array of num_hidden_layers numbers");
  for (int l = 0; l < num_layers; ++l) {
    const boost::json::value& theta = (*thetas)[l];
    if (!theta.is_number()) config.refuse("layer_rope_theta", "must be an array of num_hidden_layers numbers");
    rotating[l] = theta.to_number<double>() != 0;
  }
  return rotating;
}

ModelSpec read_text(const Fields& config) {
  ModelSpec spec = read_frame(config);
  spec.final_norm = read_rms_norm(config, 1e-5);
  spec.embedding_norm = spec.final_norm;
  spec.embedding_norm.has_weight = false;
  spec.final_logit_cap = number_of(config, "final_logit_softcapping", 20);
  spec.logit_scale = number_of(config, "output_multiplier", 0.19611613513818404);

  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_head_dim = true, .bias = false});
  attention.head_norm = spec.embedding_norm;
  attention.scale *= number_of(config, "qk_scale_factor", 3.87);
  attention.has_gate = true;
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions)};

  NormSpec before = spec.final_norm;
  before.offset = 1;
  LayerSpec layer =
      pre_norm_layer(attention, read_gated_ffn(config, "hidden_activation", "silu"), before);
  layer.mixer_post_norm = layer.ffn_post_norm = before;
  layer.mixer_post_norm.eps = layer.ffn_post_norm.eps = number_of(config, "post_norm_eps", 1e-8);
  spec.layers.assign(spec.layers.size(), layer);
  const int num_layers = spec.num_layers();
  const std::vector<bool> rotating = read_rotating(config, num_layers);
  std::vector<bool> windowed;
  for (int l = 0; l < num_layers; ++l) windowed.push_back((num_layers - 1 - l) % 4 != 0);
  windowed = read_layer_types(config, num_layers).value_or(windowed);
  for (int l = 0; l < num_layers; ++l)
    if (!rotating[l]) spec.layers[l].rope = kNoRope;
  set_windows(config, read_window(config).value_or(2048), windowed, spec);
  return spec;
}

ModelSpec read_muse_glimmer(const Fields& config) {
  config.ignore({"out_hidden_size", "projector_hidden_size"});
  return read_text_part(config, {}, read_text);
}

constexpr StoredName kModules[] = {{"mixer_post_norm", "post_attention_layernorm"},
                                   {"post_attention_layernorm", "pre_feedforward_layernorm"},
                                   {"ffn_post_norm", "post_feedforward_layernorm"}};

}  // namespace

constexpr Architecture kMuseGlimmer{"MuseGlimmerForConditionalGeneration",
                                    "muse_glimmer",
                                    read_muse_glimmer,
                                    text_names(kModules),
                                    "Muse Glimmer 30B: text",
                                    "muse-glimmer"};

}  // namespace serval
