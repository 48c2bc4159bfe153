#include "engine/model/architectures/qwen_next.h"

#include <string>
#include <string_view>

#include "engine/model/architectures/composite.h"
#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/expert_fields.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

// A layer is an attention or a delta net.
enum Kind { kAttention, kDelta };

// layer_types, or else every full_attention_interval-th layer is an attention.
std::vector<int> read_kinds(const Fields& config, int num_layers) {
  constexpr std::string_view kNames[] = {"full_attention", "linear_attention"};
  const int interval = config.find_int("full_attention_interval", 1, kMaxLayers).value_or(4);
  std::vector<int> kinds;
  for (int l = 0; l < num_layers; ++l) kinds.push_back((l + 1) % interval == 0 ? kAttention : kDelta);
  return read_layer_names(config, "layer_types", num_layers, kNames).value_or(kinds);
}

// What is absent is as in `usual`.
DeltaNetSpec read_delta_net(const Fields& config, const DeltaNetSpec& usual) {
  DeltaNetSpec spec = usual;
  spec.num_key_heads = config.find_int("linear_num_key_heads", 1, kMaxHeads).value_or(usual.num_key_heads);
  spec.num_heads = config.find_int("linear_num_value_heads", 1, kMaxHeads).value_or(usual.num_heads);
  if (spec.num_heads % spec.num_key_heads != 0)
    config.refuse("linear_num_value_heads", "must be a multiple of linear_num_key_heads");
  spec.key_dim = config.find_int("linear_key_head_dim", 1, kMaxScanKeys).value_or(usual.key_dim);
  spec.value_dim = config.find_int("linear_value_head_dim", 1, kMaxHeadDim).value_or(usual.value_dim);
  spec.taps = config.find_int("linear_conv_kernel_dim", 2, kMaxConvTaps).value_or(spec.taps);
  return spec;
}

// All but the feed-forward parts.
ModelSpec read_hybrid(const Fields& config, bool has_rows_by_key_head = false) {
  ModelSpec spec = read_frame(config);
  const NormSpec plain = read_rms_norm(config);
  spec.final_norm = plain;
  spec.final_norm.offset = 1;
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_head_dim = true, .bias = false});
  attention.head_norm = spec.final_norm;
  attention.has_gate = attention.has_gate_in_queries = true;
  if (!config.get_bool("attn_output_gate", true)) config.refuse("attn_output_gate", "must be true");
  DeltaNetSpec delta = read_delta_net(
      config, {.num_key_heads = 16, .num_heads = 32, .key_dim = 128, .value_dim = 128, .norm = plain});
  delta.has_rows_by_key_head = has_rows_by_key_head;
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions, {.part = 0.25})};
  if (const std::string act = config.find_string("hidden_act").value_or("silu"); act != "silu")
    config.refuse("hidden_act", in_quotes(act) + " is not supported; supported is silu");
  // Of the layer behind the last that guesses a second token, and what a cache would be held in.
  config.ignore({"mamba_ssm_dtype", "mtp_num_hidden_layers", "mtp_use_dedicated_embeddings", "mtp_num_layers"});

  const std::vector<int> kinds = read_kinds(config, spec.num_layers());
  for (int l = 0; l < spec.num_layers(); ++l) {
    LayerSpec& layer = spec.layers[l];
    layer.mixer_norm = layer.ffn_norm = spec.final_norm;
    if (kinds[l] == kDelta) {
      layer.mixer = delta;
    } else {
      layer.mixer = attention;
    }
  }
  set_state_groups(std::vector<bool>(kinds.begin(), kinds.end()), spec);
  return spec;
}

ModelSpec read_qwen35(const Fields& config) {
  ModelSpec spec = read_hybrid(config);
  const DenseFfnSpec ffn = read_gated_ffn(config);
  for (LayerSpec& layer : spec.layers) layer.ffn = ffn;
  return spec;
}

ModelSpec read_qwen35_composite(const Fields& config) {
  config.ignore({"language_model_only"});
  return read_text_part(config, {}, read_qwen35);
}

// Experts in every layer, beside one that all rows share and that is gated.
ModelSpec read_qwen35_moe(const Fields& config) {
  ModelSpec spec = read_hybrid(config);
  MoeFfnSpec experts = read_experts(config, spec, {});
  experts.shared_size = config.get_int("shared_expert_intermediate_size", 1, kMaxIntermediate);
  experts.has_shared_gate = true;
  set_experts(experts, std::vector<bool>(spec.layers.size(), true), spec);
  config.ignore({"mlp_only_layers", "norm_topk_prob", "decoder_sparse_step", "intermediate_size"});
  return spec;
}

ModelSpec read_qwen35_moe_composite(const Fields& config) {
  config.ignore({"language_model_only"});
  return read_text_part(config, {}, read_qwen35_moe);
}

// The same with rows by key head, and experts in the layers that the steps name.
ModelSpec read_qwen3_next(const Fields& config) {
  ModelSpec spec = read_hybrid(config, /*has_rows_by_key_head=*/true);
  const DenseFfnSpec dense = read_gated_ffn(config);
  MoeFfnSpec experts = read_experts(config, spec, dense);
  experts.rule.renormalise = config.get_bool("norm_topk_prob", true);
  experts.shared_size = config.get_int("shared_expert_intermediate_size", 1, kMaxIntermediate);
  experts.has_shared_gate = true;
  for (LayerSpec& layer : spec.layers) layer.ffn = dense;
  set_experts(experts, read_sparse_steps(config, spec.num_layers()), spec);
  return spec;
}

// Attentions with norms behind the parts and over all heads at once, delta nets with norms before them.
ModelSpec read_olmo_hybrid(const Fields& config) {
  ModelSpec spec = read_frame(config);
  spec.final_norm = read_rms_norm(config);
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false, .bias = false});
  attention.head_norm = spec.final_norm;
  attention.head_norm_place = HeadNormPlace::kAllHeads;
  const int key_dim = config.find_int("linear_key_head_dim", 1, kMaxScanKeys)
                          .value_or(static_cast<int>(
                              0.75 * spec.hidden_size /
                              config.find_int("linear_num_key_heads", 1, kMaxHeads).value_or(attention.num_heads)));
  const float of_norm = 1e-5f;  // whatever the configuration says of others
  const DeltaNetSpec usual{.num_key_heads = attention.num_heads, .num_heads = attention.num_heads, .key_dim = key_dim,
                           .value_dim = 2 * key_dim, .norm = {.kind = NormSpec::Kind::kRms, .eps = of_norm}};
  DeltaNetSpec delta = read_delta_net(config, usual);
  delta.has_conv_each = true;
  delta.beta_scale = config.get_bool("linear_allow_neg_eigval", true) ? 2 : 1;
  config.ignore({"linear_a_log_min", "linear_a_log_max", "linear_dt_min", "linear_dt_max", "linear_dt_init_floor"});
  const DenseFfnSpec ffn = read_gated_ffn(config);
  // Without a base nothing turns.
  const bool turns = find_theta(config, "rope_theta") || (config.find_object("rope_parameters") &&
                                                           find_theta(*config.find_object("rope_parameters"), "rope_theta"));
  if (turns) spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions)};

  const std::vector<int> kinds = read_kinds(config, spec.num_layers());
  for (int l = 0; l < spec.num_layers(); ++l) {
    LayerSpec& layer = spec.layers[l];
    layer = kinds[l] == kDelta ? pre_norm_layer(attention, ffn, spec.final_norm)
                               : post_norm_layer(attention, ffn, spec.final_norm);
    if (kinds[l] == kDelta) layer.mixer = delta;
  }
  set_state_groups(std::vector<bool>(kinds.begin(), kinds.end()), spec);
  return spec;
}

constexpr StoredName kOlmoModules[] = {{"input_layernorm", "attention_layer_norm"},
                                       {"post_attention_layernorm", "feedforward_layer_norm"},
                                       {"mixer_post_norm", "feedforward_layer_norm"},
                                       {"ffn_post_norm", "post_feedforward_layernorm"}};

constexpr StoredName kModules[] = {
    {"self_attn.gate_proj", "self_attn.q_proj"},      {"linear_attn.q_proj", "linear_attn.in_proj_qkv"},
    {"linear_attn.k_proj", "linear_attn.in_proj_qkv"}, {"linear_attn.v_proj", "linear_attn.in_proj_qkv"},
    {"linear_attn.g_proj", "linear_attn.in_proj_z"},   {"linear_attn.b_proj", "linear_attn.in_proj_b"},
    {"linear_attn.a_proj", "linear_attn.in_proj_a"},   {"linear_attn.o_norm", "linear_attn.norm"},
    {"linear_attn.o_proj", "linear_attn.out_proj"}};

constexpr StoredName kMoeModules[] = {
    {"self_attn.gate_proj", "self_attn.q_proj"},      {"linear_attn.q_proj", "linear_attn.in_proj_qkv"},
    {"linear_attn.k_proj", "linear_attn.in_proj_qkv"}, {"linear_attn.v_proj", "linear_attn.in_proj_qkv"},
    {"linear_attn.g_proj", "linear_attn.in_proj_z"},   {"linear_attn.b_proj", "linear_attn.in_proj_b"},
    {"linear_attn.a_proj", "linear_attn.in_proj_a"},   {"linear_attn.o_norm", "linear_attn.norm"},
    {"linear_attn.o_proj", "linear_attn.out_proj"},
    {"mlp.experts.*.gate_proj", "mlp.experts.gate_up_proj"},
    {"mlp.experts.*.up_proj", "mlp.experts.gate_up_proj"},
    {"mlp.experts.*.down_proj", "mlp.experts.down_proj"},
    {"mlp.shared_experts.", "mlp.shared_expert."}};

constexpr StoredName kNextModules[] = {
    {"self_attn.gate_proj", "self_attn.q_proj"},        {"linear_attn.q_proj", "linear_attn.in_proj_qkvz"},
    {"linear_attn.k_proj", "linear_attn.in_proj_qkvz"}, {"linear_attn.v_proj", "linear_attn.in_proj_qkvz"},
    {"linear_attn.g_proj", "linear_attn.in_proj_qkvz"}, {"linear_attn.b_proj", "linear_attn.in_proj_ba"},
    {"linear_attn.a_proj", "linear_attn.in_proj_ba"},   {"linear_attn.o_norm", "linear_attn.norm"},
    {"linear_attn.o_proj", "linear_attn.out_proj"},     {"mlp.shared_experts.", "mlp.shared_expert."}};

// Pictures, and the layer that guesses a second token.
constexpr std::string_view kIgnored[] = {"visual.", "mtp."};

constexpr TensorNames composite_names(std::span<const StoredName> modules) {
  TensorNames names = text_names(modules);
  names.ignored = kIgnored;
  return names;
}

}  // namespace

constexpr Architecture kQwen3Next{"Qwen3NextForCausalLM",
                                  "qwen3_next",
                                  read_qwen3_next,
                                  {.modules = kNextModules, .ignored = kIgnored},
                                  "Qwen3-Next 80B-A3B, Qwen3-Coder-Next",
                                  "qwen3-next"};
constexpr Architecture kQwen35{"Qwen3_5ForCausalLM",
                               "qwen3_5_text",
                               read_qwen35,
                               {.modules = kModules, .ignored = kIgnored},
                               "Qwen3.5, Qwen3.6, Qwen3.8 dense, saved as text",
                               "qwen35"};
constexpr Architecture kQwen35Composite{"Qwen3_5ForConditionalGeneration",
                                        "qwen3_5",
                                        read_qwen35_composite,
                                        composite_names(kModules),
                                        "Qwen3.5 0.8B to 27B, Qwen3.6 27B, Qwen3.8 27B: text",
                                        "qwen35-composite"};

constexpr Architecture kQwen35Moe{"Qwen3_5MoeForCausalLM",
                                  "qwen3_5_moe_text",
                                  read_qwen35_moe,
                                  {.modules = kMoeModules, .ignored = kIgnored},
                                  "Qwen3.5 and Qwen3.6 MoE, saved as text",
                                  "qwen35-moe"};
constexpr Architecture kQwen35MoeComposite{"Qwen3_5MoeForConditionalGeneration",
                                           "qwen3_5_moe",
                                           read_qwen35_moe_composite,
                                           composite_names(kMoeModules),
                                           "Qwen3.5 35B-A3B to 397B-A17B, Qwen3.6 35B-A3B: text",
                                           "qwen35-moe-composite"};
constexpr Architecture kOlmoHybrid{"OlmoHybridForCausalLM", "olmo_hybrid", read_olmo_hybrid,
                                   {.modules = kOlmoModules}, "OLMo Hybrid 7B", "olmo-hybrid olmo-hybrid-bf16"};

}  // namespace serval
