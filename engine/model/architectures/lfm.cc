#include "engine/model/architectures/lfm.h"

#include <algorithm>
#include <string_view>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/expert_fields.h"

namespace serval {
namespace {

// A layer is an attention or a short convolution.
enum Kind { kAttention, kConv };

// layer_types, or else the indices of full_attn_idxs are attentions; without either all are.
std::vector<int> read_kinds(const Fields& config, int num_layers) {
  constexpr std::string_view kNames[] = {"full_attention", "conv"};
  const std::optional<std::vector<int>> types = read_layer_names(config, "layer_types", num_layers, kNames);
  const bool has_list = config.find("full_attn_idxs") != nullptr;
  const std::vector<int64_t> attentions = config.find_integers("full_attn_idxs");
  if (types) return *types;
  std::vector<int> kinds(num_layers, has_list ? kConv : kAttention);
  for (const int64_t l : attentions) {
    if (l < 0 || l >= num_layers) config.refuse("full_attn_idxs", "must hold indices of layers");
    kinds[l] = kAttention;
  }
  return kinds;
}

// Two thirds of what is said, scaled, rounded up; unless that was done already.
DenseFfnSpec read_ffn(const Fields& config) {
  DenseFfnSpec ffn;
  const std::optional<int> own = config.find_int("intermediate_size", 1, kMaxIntermediate);
  const std::optional<int> said = config.find_int("block_ff_dim", 1, kMaxIntermediate);
  if (!own && !said) config.refuse("intermediate_size", "is missing");
  ffn.intermediate_size = said ? *said : *own;
  const int multiple = config.find_int("block_multiple_of", 1, kMaxIntermediate).value_or(256);
  const double factor = config.find_positive("block_ffn_dim_multiplier", 64).value_or(1);
  if (config.get_bool("block_auto_adjust_ff_dim", true)) {
    const int scaled = static_cast<int>(factor * static_cast<int>(2.0 * ffn.intermediate_size / 3));
    ffn.intermediate_size = (scaled + multiple - 1) / multiple * multiple;
  }
  return ffn;
}

// All but the feed-forward parts.
ModelSpec read_mixers(const Fields& config) {
  constexpr bool kTiesWhenAbsent = true;
  ModelSpec spec = read_frame(config, kTiesWhenAbsent);
  spec.tied_embeddings = config.get_bool("tie_embedding", spec.tied_embeddings);
  const double eps = config.find_positive("norm_eps", 1).value_or(1e-5);
  spec.final_norm = {.kind = NormSpec::Kind::kRms, .eps = static_cast<float>(eps)};

  GqaSpec attention = read_heads(config, spec.hidden_size);
  attention.head_norm = spec.final_norm;
  ShortConvSpec conv;
  conv.channels = spec.hidden_size;
  conv.taps = config.find_int("conv_L_cache", 2, kMaxConvTaps).value_or(conv.taps);
  conv.has_bias = config.get_bool("conv_bias", false);
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions, {.theta = 1e6})};
  const std::vector<int> kinds = read_kinds(config, spec.num_layers());
  for (int l = 0; l < spec.num_layers(); ++l) {
    spec.layers[l] = pre_norm_layer(attention, {}, spec.final_norm);
    if (kinds[l] == kConv) spec.layers[l].mixer = conv;
  }
  set_state_groups(std::vector<bool>(kinds.begin(), kinds.end()), spec);
  return spec;
}

ModelSpec read_lfm2(const Fields& config) {
  ModelSpec spec = read_mixers(config);
  const DenseFfnSpec ffn = read_ffn(config);
  for (LayerSpec& layer : spec.layers) layer.ffn = ffn;
  // What weights were drawn from, and what older files repeat.
  config.ignore({"block_dim", "block_norm_eps", "block_mlp_init_scale", "block_out_init_scale", "block_use_swiglu",
                 "block_use_xavier_init", "conv_dim", "conv_dim_out", "conv_use_xavier_init", "num_heads",
                 "use_pos_enc"});
  return spec;
}

// Convolutions, attentions with a window and attentions that see everything, each with a rotation of its own.
ModelSpec read_lfm3(const Fields& config) {
  enum Kind3 { kFull, kWindowed, kConvolution };
  ModelSpec spec = read_frame(config, /*ties_when_absent=*/true);
  spec.final_norm = read_rms_norm(config, 1e-5);
  spec.final_norm.eps = static_cast<float>(config.find_positive("norm_eps", 1).value_or(spec.final_norm.eps));  // another name
  config.ignore({"hidden_act"});  // it is silu, whatever this says
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_head_dim = true, .bias = false});
  attention.head_norm = spec.final_norm;
  attention.has_head_gate = config.get_bool("use_attention_gate", true);
  ShortConvSpec conv;
  conv.channels = spec.hidden_size;
  conv.taps = config.find_int("conv_L_cache", 2, kMaxConvTaps).value_or(7);
  conv.has_bias = config.get_bool("conv_bias", false);
  if (config.find("rope_parameters") == nullptr) config.refuse("rope_parameters", "is missing");
  spec.ropes = read_ropes_by_kind(config, spec.max_positions, {attention.head_dim, {.theta = 1e6}}, {attention.head_dim, {.theta = 1e4}});
  DenseFfnSpec ffn;
  ffn.intermediate_size = config.get_int("intermediate_size", 1, kMaxIntermediate);
  std::vector<int> kinds;
  for (int l = 0; l < spec.num_layers(); ++l) kinds.push_back(l % 4 == 2 ? kFull : l % 4 == 0 && l > 0 ? kWindowed : kConvolution);
  constexpr std::string_view kNames[] = {"full_attention", "sliding_attention", "conv"};
  kinds = read_layer_names(config, "layer_types", spec.num_layers(), kNames).value_or(kinds);
  LayerSpec layer = pre_norm_layer(attention, ffn, spec.final_norm);
  if (config.get_bool("use_sandwich_norm", true)) layer.mixer_post_norm = layer.ffn_post_norm = spec.final_norm;
  for (int l = 0; l < spec.num_layers(); ++l) {
    spec.layers[l] = layer;
    spec.layers[l].rope = kinds[l] == kWindowed ? kWindowedRope : kFullRope;
    if (kinds[l] == kConvolution) spec.layers[l].mixer = conv;
  }
  const int window = read_window(config).value_or(256);
  if (window == 0) config.refuse("sliding_window", "must be positive");
  set_groups({{}, {.window = window, .layers = {}}, {.keeps_state = true, .layers = {}}}, kinds, spec);
  return spec;
}

// Experts by sigmoids, with a correction of the choice, behind some dense layers.
ModelSpec read_lfm2_moe(const Fields& config) {
  ModelSpec spec = read_mixers(config);
  const DenseFfnSpec dense = read_gated_ffn(config);
  MoeFfnSpec experts = read_experts(config, spec, dense);
  experts.has_correction = config.get_bool("use_expert_bias", true);
  experts.rule.score = RoutingRule::Score::kSigmoid;
  experts.rule.renormalise = config.get_bool("norm_topk_prob", true);
  experts.rule.least_sum = 1e-6f;
  experts.rule.scale = static_cast<float>(config.find_positive("routed_scaling_factor", 1e6).value_or(1));
  const int num_dense = config.find_int("num_dense_layers", 0, kMaxLayers).value_or(2);
  std::vector<bool> has_experts;
  for (int l = 0; l < spec.num_layers(); ++l) {
    spec.layers[l].ffn = dense;
    has_experts.push_back(l >= num_dense);
  }
  set_experts(experts, has_experts, spec);
  return spec;
}

constexpr StoredName kModules[] = {
    {"input_layernorm", "operator_norm"},         {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "feed_forward.w1"},         {"mlp.up_proj", "feed_forward.w3"},
    {"mlp.down_proj", "feed_forward.w2"},         {"self_attn.o_proj", "self_attn.out_proj"},
    {"self_attn.q_norm", "self_attn.q_layernorm"}, {"self_attn.k_norm", "self_attn.k_layernorm"},
    {"mlp.gate", "feed_forward.gate"},            {"mlp.gate.e_score_correction_bias", "feed_forward.expert_bias"},
    {"mlp.experts.*.gate_proj", "feed_forward.experts.*.w1"},
    {"mlp.experts.*.up_proj", "feed_forward.experts.*.w3"},
    {"mlp.experts.*.down_proj", "feed_forward.experts.*.w2"}};

constexpr StoredName kModules3[] = {
    {"input_layernorm", "operator_norm"}, {"mixer_post_norm", "post_operator_norm"},
    {"post_attention_layernorm", "ffn_norm"}, {"ffn_post_norm", "post_ffn_norm"}, {"self_attn.g_proj", "self_attn.gate_proj"},
    {"mlp.gate_proj", "feed_forward.w1"}, {"mlp.up_proj", "feed_forward.w3"}, {"mlp.down_proj", "feed_forward.w2"}};

}  // namespace

constexpr Architecture kLfm3{"Lfm3ForCausalLM",
                             "lfm3",
                             read_lfm3,
                             {.final_norm = "model.embedding_norm", .modules = kModules3},
                             "LFM3 1.7B",
                             "lfm3"};
constexpr Architecture kLfm2{"Lfm2ForCausalLM",
                             "lfm2",
                             read_lfm2,
                             {.final_norm = "model.embedding_norm", .modules = kModules},
                             "LFM2, LFM2.5",
                             "lfm2 lfm2-bf16"};
constexpr Architecture kLfm2Moe{"Lfm2MoeForCausalLM",
                                "lfm2_moe",
                                read_lfm2_moe,
                                {.final_norm = "model.embedding_norm", .modules = kModules},
                                "LFM2 8B-A1B, 24B-A2B",
                                "lfm2-moe"};

}  // namespace serval
