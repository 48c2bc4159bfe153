#include "engine/model/architectures/gemma.h"

#include <cmath>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/harmless_fields.h"

namespace serval {
namespace {

constexpr int kGlobal = 0, kLocal = 1;  // rotations

// layer_types, or else every pattern-th layer sees everything.
std::vector<bool> read_windowed(const Fields& config, int num_layers, int pattern) {
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

ModelSpec read_gemma3(const Fields& config) {
  ModelSpec spec = read_outside(config);
  GqaSpec attention = read_attention(config, spec);
  attention.head_norm = spec.final_norm;
  spec.ropes = read_ropes(config, attention.head_dim, spec.max_positions);
  const int pattern = config.find_int("sliding_window_pattern", 1, kMaxLayers)
                          .value_or(config.find_int("_sliding_window_pattern", 1, kMaxLayers).value_or(6));
  const std::vector<bool> windowed = read_windowed(config, spec.num_layers(), pattern);
  set_layers(config, attention, windowed, spec);
  for (int l = 0; l < spec.num_layers(); ++l) spec.layers[l].rope = windowed[l] ? kLocal : kGlobal;
  return spec;
}

ModelSpec read_gemma3_composite(const Fields& config) {
  config.ignore({"vision_config", "mm_tokens_per_image", "boi_token_index", "eoi_token_index",
                 "image_token_index", "boi_token_id", "eoi_token_id", "image_token_id"});
  // Published composites leave out what has the reference's value.
  boost::json::object text = {
      {"vocab_size", 262208},  {"num_attention_heads", 8},          {"num_key_value_heads", 4},
      {"head_dim", 256},       {"max_position_embeddings", 131072}, {"query_pre_attn_scalar", 256},
      {"sliding_window", 4096}};
  for (const auto& [name, value] : config.get_object("text_config").object()) text[name] = value;
  const Fields fields(text, config.file(), "text_config.");
  fields.find("model_type");
  ModelSpec spec = read_gemma3(fields);
  // Beside the text's own field, which is mostly absent.
  spec.tied_embeddings = config.get_bool("tie_word_embeddings", spec.tied_embeddings);
  refuse_unasked(fields);
  return spec;
}

constexpr StoredName kModules[] = {{"mixer_post_norm", "post_attention_layernorm"},
                                   {"post_attention_layernorm", "pre_feedforward_layernorm"},
                                   {"ffn_post_norm", "post_feedforward_layernorm"}};

constexpr std::string_view kImages[] = {"vision_tower.", "multi_modal_projector."};

}  // namespace

constexpr Architecture kGemma2{"Gemma2ForCausalLM",   "gemma2",  read_gemma2,
                               {.modules = kModules}, "Gemma 2", "gemma2-bf16"};
constexpr Architecture kGemma3{"Gemma3ForCausalLM",   "gemma3_text",      read_gemma3,
                               {.modules = kModules}, "Gemma 3 270M, 1B", "gemma3 gemma3-bf16"};
constexpr Architecture kGemma3Composite{"Gemma3ForConditionalGeneration",
                                        "gemma3",
                                        read_gemma3_composite,
                                        {.embedding = "language_model.model.embed_tokens",
                                         .layers = "language_model.model.layers",
                                         .final_norm = "language_model.model.norm",
                                         .head = "language_model.lm_head",
                                         .modules = kModules,
                                         .ignored = kImages},
                                        "Gemma 3 4B, 12B, 27B; MedGemma: text",
                                        "gemma3-composite"};

}  // namespace serval
