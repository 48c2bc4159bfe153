#include "engine/model/architectures/gemma3n.h"

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "engine/model/architectures/composite.h"
#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/shared_keys.h"

namespace serval {
namespace {

// One for all layers, or one each.
std::vector<int> read_widths(const Fields& config, int num_layers) {
  const boost::json::value& said = config.get("intermediate_size");
  if (!said.is_array()) return std::vector<int>(num_layers, config.get_int("intermediate_size", 1, kMaxIntermediate));
  std::vector<int> widths;
  for (const int64_t width : config.find_integers("intermediate_size")) {
    if (width < 1 || width > kMaxIntermediate) config.refuse("intermediate_size", "must hold sizes of layers");
    widths.push_back(static_cast<int>(width));
  }
  if (static_cast<int>(widths.size()) != num_layers) config.refuse("intermediate_size", "must have a size for each layer");
  return widths;
}

// How many deviations above the mean lies so large a part of a normal distribution (by bisection of its integral).
float deviations_of(double part) {
  double low = -10, high = 10;
  for (int i = 0; i < 100; ++i) {
    const double middle = (low + high) / 2;
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < part ? low : high) = middle;
  }
  return static_cast<float>(low);
}

// Of each layer, the part of the gate that is cut off.
std::vector<std::optional<float>> read_cuts(const Fields& config, int num_layers) {
  std::vector<std::optional<float>> cuts(num_layers);
  const boost::json::array* const parts = config.find_array("activation_sparsity_pattern");
  if (parts != nullptr && static_cast<int>(parts->size()) != num_layers)
    config.refuse("activation_sparsity_pattern", "must have a number for each layer");
  for (int l = 0; l < num_layers; ++l) {
    double part = num_layers > 10 && l < 10 ? 0.95 : 0;
    if (parts != nullptr) {
      const boost::json::value& said = (*parts)[l];
      if (!said.is_number()) config.refuse("activation_sparsity_pattern", "must hold numbers");
      part = said.to_number<double>();
      if (!(part >= 0 && part < 1)) config.refuse("activation_sparsity_pattern", "must hold numbers from 0 to below 1");
    }
    if (part > 0) cuts[l] = deviations_of(part);
  }
  return cuts;
}

ModelSpec read_text(const Fields& config) {
  constexpr bool kTiesWhenAbsent = true;
  ModelSpec spec = read_frame(config, kTiesWhenAbsent);
  const int num_layers = spec.num_layers();
  spec.embedding_scale = std::sqrt(static_cast<float>(spec.hidden_size));
  spec.final_logit_cap = static_cast<float>(config.find_positive("final_logit_softcapping", 1e6).value_or(30));
  spec.final_norm = read_rms_norm(config);
  spec.has_nested_ffn = true;

  LayerInputsSpec& inputs = spec.layer_inputs;
  const int table = config.find_int("vocab_size_per_layer_input", 1, kMaxVocab).value_or(262144);
  inputs.width = config.find_int("hidden_size_per_layer_input", 8, kMaxHidden).value_or(256);
  inputs.vocab_size = std::max(table, spec.vocab_size);
  if (table < spec.vocab_size) inputs.table_rows = table;
  inputs.num_layers = num_layers;
  inputs.norm = spec.final_norm;
  spec.streams = {.count = config.find_int("altup_num_inputs", 2, kMaxStreams).value_or(4),
                  .rank = config.find_int("laurel_rank", 1, kMaxHidden).value_or(64),
                  .norm = spec.final_norm};
  if (config.find_int("altup_active_idx", 0, kMaxStreams).value_or(0) != 0) config.refuse("altup_active_idx", "must be 0");
  if (!config.get_bool("altup_correct_scale", true)) config.refuse("altup_correct_scale", "must be true");
  // Of training, and of scores, which the reference does not scale.
  config.ignore({"altup_coef_clip", "altup_lr_multiplier", "query_pre_attn_scalar", "hidden_act"});

  GqaSpec heads = read_heads(config, spec.hidden_size, {.requires_head_dim = true, .bias = false});
  heads.scale = 1;
  heads.head_norm = spec.final_norm;
  heads.value_norm = {.kind = NormSpec::Kind::kRms, .eps = spec.final_norm.eps, .has_weight = false};
  inputs.activation = read_activation(config, "hidden_activation", "gelu_pytorch_tanh");
  const std::vector<int> widths = read_widths(config, num_layers);
  const std::vector<std::optional<float>> cuts = read_cuts(config, num_layers);
  const std::vector<bool> windowed = read_windowed(config, num_layers, 5);
  spec.ropes = read_ropes_by_kind(
      config, spec.max_positions, {heads.head_dim, {.theta = 1e6}},
      {heads.head_dim, {.theta = find_theta(config, "rope_local_base_freq").value_or(1e4)}});
  const std::vector<std::optional<int>> sources = read_key_sources(config, windowed, 15);
  for (int l = 0; l < num_layers; ++l) {
    GqaSpec own = heads;
    own.has_keys = !sources[l];
    const DenseFfnSpec ffn{.intermediate_size = widths[l], .activation = inputs.activation, .gate_cut = cuts[l]};
    LayerSpec& layer = spec.layers[l] = pre_norm_layer(own, ffn, spec.final_norm);
    layer.mixer_post_norm = layer.ffn_post_norm = spec.final_norm;
    layer.rope = windowed[l] ? kWindowedRope : kFullRope;
    layer.kv_source = sources[l];
  }
  set_windows(config, read_window(config).value_or(512), windowed, spec);
  leave_shared_keys(sources, spec);
  return spec;
}

ModelSpec read_composite(const Fields& config) {
  config.ignore({"audio_soft_tokens_per_image", "eoi_token_id"});
  return read_text_part(config,
                        {{"vocab_size", 262400},
                         {"hidden_size", 2048},
                         {"intermediate_size", 16384},
                         {"num_hidden_layers", 35},
                         {"num_attention_heads", 8},
                         {"num_key_value_heads", 2},
                         {"head_dim", 256},
                         {"max_position_embeddings", 32768}},
                        read_text);
}

constexpr TensorNames with_unused(TensorNames names) {
  names.ignored = kNotTextOrKeys;
  return names;
}

}  // namespace

constexpr Architecture kGemma3n{"Gemma3nForCausalLM",
                                "gemma3n_text",
                                read_text,
                                with_unused({.modules = kSandwichModules}),
                                "Gemma 3n without pictures",
                                "gemma3n"};
constexpr Architecture kGemma3nComposite{"Gemma3nForConditionalGeneration",
                                         "gemma3n",
                                         read_composite,
                                         with_unused(text_names(kSandwichModules)),
                                         "Gemma 3n E2B, E4B: text",
                                         "gemma3n-composite"};

}  // namespace serval
