#include "engine/model/architectures/mamba_hybrids.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/expert_fields.h"
#include "engine/model/architectures/mamba2_fields.h"
#include "engine/model/architectures/mamba_fields.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

// Layers of one kind of mixer each, alike in all else.
void set_layers(const GqaSpec& attention, const Mamba2Spec& mamba, const std::vector<bool>& keeps_state,
                const FfnSpec& ffn, ModelSpec& spec) {
  for (int l = 0; l < spec.num_layers(); ++l) {
    spec.layers[l] = pre_norm_layer(attention, ffn, spec.final_norm);
    if (keeps_state[l]) spec.layers[l].mixer = mamba;
  }
  set_state_groups(keeps_state, spec);
}

// A factor; 1 where it is absent.
float read_factor(const Fields& config, std::string_view field) {
  return static_cast<float>(config.find_positive(field, 1e6).value_or(1));
}

// A list of as many factors; ones where it is absent.
std::vector<float> read_factors(const Fields& config, std::string_view field, size_t count) {
  const boost::json::array* const list = config.find_array(field);
  if (list == nullptr) return std::vector<float>(count, 1);
  std::vector<float> factors;
  for (const boost::json::value& value : *list) {
    if (!value.is_number() || !(value.to_number<double>() > 0)) config.refuse(field, "must hold numbers above 0");
    factors.push_back(static_cast<float>(value.to_number<double>()));
  }
  if (factors.size() != count) config.refuse(field, "must hold " + std::to_string(count) + " numbers");
  return factors;
}

ModelSpec read_bamba(const Fields& config) {
  ModelSpec spec = read_frame(config);
  spec.final_norm = read_rms_norm(config);
  const GqaSpec attention = read_heads(config, spec.hidden_size, {.bias = false});
  DenseFfnSpec ffn = read_gated_ffn(config);
  ffn.bias = config.get_bool("mlp_bias", false);
  std::vector<bool> keeps_state(spec.layers.size(), true);
  for (const int64_t l : config.find_integers("attn_layer_indices")) {
    if (l < 0 || l >= spec.num_layers()) config.refuse("attn_layer_indices", "must hold indices of layers");
    keeps_state[l] = false;
  }
  config.ignore({"layers_block_type", "layer_types", "attn_rotary_emb"});
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions, {.part = 0.5})};
  set_layers(attention, read_mamba2_mixer(config, spec.hidden_size, spec.final_norm), keeps_state, ffn, spec);
  return spec;
}

ModelSpec read_granite_hybrid(const Fields& config) {
  ModelSpec spec = read_frame(config);
  spec.final_norm = read_rms_norm(config);
  spec.embedding_scale = read_factor(config, "embedding_multiplier");
  spec.residual_scale = read_factor(config, "residual_multiplier");
  spec.logit_scale = 1 / read_factor(config, "logits_scaling");
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false, .bias = false});
  attention.scale = read_factor(config, "attention_multiplier");
  constexpr std::string_view kNames[] = {"full_attention", "linear_attention", "attention", "mamba"};
  const std::vector<int> kinds = read_layer_names(config, "layer_types", spec.num_layers(), kNames)
                                     .value_or(std::vector<int>(spec.layers.size(), 1));
  std::vector<bool> keeps_state;
  for (const int kind : kinds) keeps_state.push_back(kind % 2 == 1);
  // Of experts that there may not be, what weights were drawn from, and what is said elsewhere.
  config.ignore({"num_experts_per_tok", "intermediate_size", "layers_block_type", "init_method",
                 "normalization_function"});

  DenseFfnSpec ffn;
  ffn.intermediate_size = config.find_int("shared_intermediate_size", 1, kMaxIntermediate).value_or(1024);
  if (const std::string act = config.find_string("hidden_act").value_or("silu"); act != "silu")
    config.refuse("hidden_act", in_quotes(act) + " is not supported; supported is silu");
  const std::string positions = config.find_string("position_embedding_type").value_or("nope");
  const RopeSpec rope = read_rope(config, attention.head_dim, spec.max_positions);
  if (positions == "rope") spec.ropes = {rope};
  set_layers(attention, read_mamba2_mixer(config, spec.hidden_size, spec.final_norm), keeps_state, ffn, spec);
  if (config.find_int("num_local_experts", 0, kMaxExperts).value_or(8) == 0) return spec;
  // What is the feed-forward part of the others stands beside the experts.
  MoeFfnSpec experts =
      read_experts(config, spec, ffn, {.count = {"num_local_experts"}, .width = "intermediate_size"});
  experts.shared_size = ffn.intermediate_size;
  set_experts(experts, std::vector<bool>(spec.layers.size(), true), spec);
  return spec;
}

// Two mixers read one norm in each of the checkpoint's layers: here a layer each.
ModelSpec read_falcon_h1(const Fields& config) {
  ModelSpec spec = read_frame(config);
  spec.final_norm = read_rms_norm(config);
  spec.embedding_scale = read_factor(config, "embedding_multiplier");
  spec.logit_scale = read_factor(config, "lm_head_multiplier");

  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false, .bias = false});
  const float attention_in = read_factor(config, "attention_in_multiplier");
  if (attention.qkv_bias && attention_in != 1)
    config.refuse("attention_in_multiplier", "must be 1 where attention_bias is true");
  attention.scale *= read_factor(config, "key_multiplier") * attention_in * attention_in;
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions)};

  const std::optional<int> inner = config.find_int("mamba_d_ssm", 1, kMaxIntermediate);
  const bool is_named = config.find("mamba_d_ssm") != nullptr;
  NormSpec norm;
  if (config.get_bool("mamba_rms_norm", false)) norm = spec.final_norm;
  Mamba2Spec mamba = read_mamba2_mixer(config, spec.hidden_size, norm, is_named ? inner : std::nullopt);
  mamba.has_norm_before_gate = config.get_bool("mamba_norm_before_gate", true);
  mamba.has_output_bias = config.get_bool("projectors_bias", false);
  const float mamba_in = read_factor(config, "ssm_in_multiplier");
  const std::vector<float> pieces = read_factors(config, "ssm_multipliers", mamba.input_scales.size());
  for (size_t i = 0; i < pieces.size(); ++i) mamba.input_scales[i] = pieces[i] * mamba_in;

  DenseFfnSpec ffn = read_gated_ffn(config);
  ffn.bias = config.get_bool("mlp_bias", false);
  const std::vector<float> of_ffn = read_factors(config, "mlp_multipliers", 2);
  ffn.gate_scale = of_ffn[0];
  // What weights were drawn from, and what is said elsewhere.
  config.ignore({"attn_layer_indices", "layers_block_type", "layer_types", "mamba_use_mlp", "mlp_expansion_factor"});

  LayerSpec state, attended = pre_norm_layer(attention, ffn, spec.final_norm);
  state.mixer = mamba;
  state.ffn = NoFfnSpec();
  state.mixer_norm = spec.final_norm;
  state.mixer_scale = read_factor(config, "ssm_out_multiplier");
  attended.is_beside = true;
  attended.mixer_norm = {};
  attended.mixer_scale = read_factor(config, "attention_out_multiplier") * attention_in;
  attended.ffn_scale = of_ffn[1];
  std::vector<LayerSpec> layers;
  std::vector<bool> keeps_state;
  for (int l = 0; l < spec.num_layers(); ++l) {
    state.stored_index = attended.stored_index = l;
    layers.insert(layers.end(), {state, attended});
    keeps_state.insert(keeps_state.end(), {true, false});
  }
  spec.layers = std::move(layers);
  set_state_groups(keeps_state, spec);
  return spec;
}

// One part a layer, by a letter each or by a name.
std::vector<int> read_parts(const Fields& config) {
  constexpr std::string_view kLetters = "M*-E";
  constexpr std::string_view kNames[] = {"linear_attention", "full_attention", "mlp", "moe",
                                         "mamba",            "attention",      "mlp", "moe"};
  const std::optional<std::string> pattern = config.find_string("hybrid_override_pattern");
  const std::optional<int> said = config.find_int("num_hidden_layers", 1, kMaxLayers);
  std::vector<int> parts;
  if (const boost::json::array* const names = config.find_array("layers_block_type")) {
    parts = *read_layer_names(config, "layers_block_type", static_cast<int>(names->size()), kNames);
    for (int& part : parts) part %= 4;
  } else {
    if (!pattern) config.refuse("hybrid_override_pattern", "is missing");
    for (const char letter : *pattern) {
      const size_t part = kLetters.find(letter);
      if (part == kLetters.npos) config.refuse("hybrid_override_pattern", "must hold the letters M, *, - and E");
      parts.push_back(static_cast<int>(part));
    }
  }
  if (parts.empty() || parts.size() > kMaxLayers || static_cast<int>(parts.size()) != said.value_or(parts.size()))
    config.refuse("num_hidden_layers", "must be as many as the layers that are named");
  return parts;
}

// Experts without gates, chosen as DeepSeek-V3 does, of a width of their own where there is one; beside a shared one.
MoeFfnSpec read_nemotron_experts(const Fields& config, const ModelSpec& frame, const MlpFfnSpec& mlp) {
  MoeFfnSpec experts =
      read_experts(config, frame, {.activation = mlp.activation}, {.count = {"n_routed_experts"}});
  read_corrected_routing(config, experts);
  experts.has_gate = false;
  experts.latent_size = config.find_int("moe_latent_size", 1, kMaxHidden).value_or(0);
  if (experts.latent_size > frame.hidden_size) config.refuse("moe_latent_size", "must be at most hidden_size");
  experts.shared_size = config.find_int("moe_shared_expert_intermediate_size", 1, kMaxIntermediate).value_or(7688);
  experts.shared_bias = mlp.bias;
  return experts;
}

// Layers of one part each.
ModelSpec read_nemotron_h(const Fields& config) {
  enum Part { kState, kAttention, kMlp, kExperts };
  ModelSpec spec;
  spec.vocab_size = config.get_int("vocab_size", 1, kMaxVocab);
  spec.hidden_size = config.get_int("hidden_size", 1, kMaxHidden);
  spec.max_positions = config.get_int("max_position_embeddings", 1, kMaxPositions);
  spec.tied_embeddings = config.get_bool("tie_word_embeddings", false);
  const double eps = config.find_positive("layer_norm_epsilon", 1).value_or(1e-5);
  spec.final_norm = {.kind = NormSpec::Kind::kRms, .eps = static_cast<float>(eps)};

  GqaSpec attention = read_heads(config, spec.hidden_size);
  const std::optional<int> older = config.find_int("attention_head_dim", 8, kMaxHeadDim);
  attention.head_dim = config.find_int("head_dim", 8, kMaxHeadDim).value_or(older.value_or(128));
  attention.scale = 1 / std::sqrt(static_cast<float>(attention.head_dim));
  Mamba2Spec mamba;
  mamba.num_heads = config.find_int("mamba_num_heads", 1, kMaxHeads).value_or(128);
  mamba.head_dim = config.find_int("mamba_head_dim", 1, kMaxHeadDim).value_or(64);
  mamba.num_groups = config.find_int("n_groups", 1, kMaxHeads).value_or(8);
  mamba.num_states = config.find_int("ssm_state_size", 1, kMaxScanKeys).value_or(128);
  if (mamba.num_heads % mamba.num_groups != 0) config.refuse("mamba_num_heads", "must be a multiple of n_groups");
  mamba.taps = config.find_int("conv_kernel", 2, kMaxConvTaps).value_or(mamba.taps);
  mamba.has_conv_bias = config.get_bool("use_conv_bias", true);
  mamba.has_input_bias = mamba.has_output_bias = config.get_bool("use_bias", false);
  // Of a step's limits the reference takes the lower one from what the weights were drawn by.
  mamba.least_step = static_cast<float>(config.find_number("time_step_min", 0, 1e3).value_or(0.001));
  mamba.norm = spec.final_norm;
  MlpFfnSpec mlp;
  mlp.intermediate_size = config.find_int("intermediate_size", 1, kMaxIntermediate).value_or(21504);
  mlp.activation = read_activation(config, "mlp_hidden_act", "relu2");
  mlp.bias = config.get_bool("mlp_bias", false);
  if (const std::string act = config.find_string("mamba_hidden_act").value_or("silu"); act != "silu")
    config.refuse("mamba_hidden_act", in_quotes(act) + " is not supported; supported is silu");
  // What weights were drawn from, how the reference computes, and rotations that attention does not have.
  config.ignore({"attention_bias", "chunk_size", "expand", "mamba_proj_bias",
                 "mamba_ssm_cache_dtype", "mtp_layers_block_type", "mtp_hybrid_override_pattern", "norm_eps",
                 "num_logits_to_keep", "partial_rotary_factor", "rescale_prenorm_residual", "residual_in_fp32",
                 "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "time_step_floor", "time_step_limit",
                 "time_step_max", "time_step_rank", "use_mamba_kernels"});

  const std::vector<int> parts = read_parts(config);
  MoeFfnSpec experts;
  if (std::find(parts.begin(), parts.end(), static_cast<int>(kExperts)) != parts.end())
    experts = read_nemotron_experts(config, spec, mlp);
  // Of a model without experts; and of layers that guess more tokens.
  config.ignore({"n_routed_experts", "n_shared_experts", "moe_intermediate_size", "moe_shared_expert_intermediate_size",
                 "moe_latent_size", "moe_shared_expert_overlap", "num_experts_per_tok", "routed_scaling_factor",
                 "n_group", "topk_group", "norm_topk_prob", "num_nextn_predict_layers"});
  std::vector<int> groups;
  for (const int part : parts) {
    LayerSpec layer;
    layer.mixer = NoMixerSpec();
    layer.ffn = NoFfnSpec();
    layer.rope = kNoRope;
    const bool is_ffn = part == kMlp || part == kExperts;
    (is_ffn ? layer.ffn_norm : layer.mixer_norm) = spec.final_norm;
    if (part == kState) layer.mixer = mamba;
    if (part == kAttention) layer.mixer = attention;
    if (part == kMlp) layer.ffn = mlp;
    if (part == kExperts) layer.ffn = experts;
    spec.layers.push_back(layer);
    groups.push_back(is_ffn ? -1 : part == kState ? 1 : 0);
  }
  set_groups({{}, {.keeps_state = true, .layers = {}}}, groups, spec);
  return spec;
}

// Mamba's first mixer, with norms of steps, b and c; attention without rotation at every period-th layer.
ModelSpec read_jamba(const Fields& config) {
  ModelSpec spec = read_frame(config);
  spec.final_norm = read_rms_norm(config);
  const GqaSpec attention = read_heads(config, spec.hidden_size);
  MambaSpec mamba;
  read_mamba_fields(config, spec.hidden_size, mamba);
  mamba.inner_norm = spec.final_norm;
  const DenseFfnSpec dense = read_gated_ffn(config);
  const int period = config.find_int("attn_layer_period", 1, kMaxLayers).value_or(8);
  const int offset = config.find_int("attn_layer_offset", 0, period - 1).value_or(4);
  const int expert_period = config.find_int("expert_layer_period", 1, kMaxLayers).value_or(2);
  const int expert_offset = config.find_int("expert_layer_offset", 0, expert_period - 1).value_or(1);
  // How the reference computes, and of experts that there may not be.
  config.ignore({"mamba_inner_layernorms", "use_mamba_kernels", "use_mambapy", "use_associative_scan",
                 "num_logits_to_keep", "num_experts_per_tok"});

  std::vector<bool> keeps_state, has_experts;
  for (int l = 0; l < spec.num_layers(); ++l) {
    keeps_state.push_back(l % period != offset);
    has_experts.push_back(l % expert_period == expert_offset);
    spec.layers[l] = pre_norm_layer(attention, dense, spec.final_norm);
    if (keeps_state[l]) spec.layers[l].mixer = mamba;
  }
  if (config.find_int("num_experts", 1, kMaxExperts).value_or(16) > 1) {
    MoeFfnSpec experts = read_experts(config, spec, dense, {.count = {"num_experts"}, .width = "intermediate_size"});
    experts.rule.renormalise = false;
    set_experts(experts, has_experts, spec);
  }
  set_state_groups(keeps_state, spec);
  return spec;
}

constexpr StoredName kNemotronModules[] = {
    {"input_layernorm", "norm"}, {"post_attention_layernorm", "norm"}, {"self_attn.", "mixer."}, {"mlp.", "mixer."}};

constexpr StoredName kModules[] = {
    {"mixer.", "mamba."}, {"post_attention_layernorm", "pre_ff_layernorm"}, {"mlp.gate", "feed_forward.router"},
    {"mlp.", "feed_forward."}};
constexpr StoredName kGraniteModules[] = {{"mixer.", "mamba."},
                                          {"mlp.gate_proj", "shared_mlp.input_linear"},
                                          {"mlp.up_proj", "shared_mlp.input_linear"},
                                          {"mlp.down_proj", "shared_mlp.output_linear"},
                                          {"mlp.gate", "block_sparse_moe.router.layer"},
                                          {"mlp.experts.*.gate_proj", "block_sparse_moe.input_linear.weight"},
                                          {"mlp.experts.*.up_proj", "block_sparse_moe.input_linear.weight"},
                                          {"mlp.experts.*.down_proj", "block_sparse_moe.output_linear.weight"},
                                          {"mlp.shared_experts.gate_proj", "shared_mlp.input_linear"},
                                          {"mlp.shared_experts.up_proj", "shared_mlp.input_linear"},
                                          {"mlp.shared_experts.down_proj", "shared_mlp.output_linear"}};
// Layers that guess more tokens.
constexpr std::string_view kNemotronGuesses[] = {"mtp."};

}  // namespace

constexpr Architecture kBamba{"BambaForCausalLM",
                              "bamba",
                              read_bamba,
                              {.final_norm = "model.final_layernorm", .modules = kModules},
                              "Bamba 9B",
                              "bamba"};
constexpr Architecture kGraniteHybrid{"GraniteMoeHybridForCausalLM",
                                      "granitemoehybrid",
                                      read_granite_hybrid,
                                      {.modules = kGraniteModules},
                                      "Granite 4.0 micro, h-micro, h-1b, h-350m, h-tiny, h-small",
                                      "granite-hybrid granite-hybrid-bf16 granite-hybrid-moe"};
constexpr Architecture kFalconH1{"FalconH1ForCausalLM",
                                 "falcon_h1",
                                 read_falcon_h1,
                                 {.final_norm = "model.final_layernorm", .modules = kModules},
                                 "Falcon-H1 0.5B to 34B",
                                 "falcon-h1 falcon-h1-bf16"};

constexpr Architecture kJamba{"JambaForCausalLM",
                              "jamba",
                              read_jamba,
                              {.final_norm = "model.final_layernorm", .modules = kModules},
                              "Jamba Reasoning 3B, Jamba 1.5 and 1.7 Mini, Large",
                              "jamba jamba-moe"};
constexpr Architecture kNemotronH{"NemotronHForCausalLM",
                                  "nemotron_h",
                                  read_nemotron_h,
                                  {.embedding = "backbone.embeddings",
                                   .layers = "backbone.layers",
                                   .final_norm = "backbone.norm_f",
                                   .modules = kNemotronModules,
                                   .ignored = kNemotronGuesses},
                                  "Nemotron-H 4B to 56B, Nemotron Nano 2 9B, 12B, Nemotron 3 Nano, Super",
                                  "nemotron-h nemotron-h-bf16 nemotron-h-moe nemotron-h-latent"};

}  // namespace serval
