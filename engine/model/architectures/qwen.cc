#include "engine/model/architectures/qwen.h"

#include <string>

#include "engine/model/architectures/composite.h"
#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/expert_fields.h"

namespace serval {
namespace {

// use_sliding_window switches the window on; layer_types, or else max_window_layers, says where.
void read_windows(const Fields& config, ModelSpec& spec) {
  const int num_layers = spec.num_layers();
  const std::optional<int> window = read_window(config);
  const std::optional<std::vector<bool>> types = read_layer_types(config, num_layers);
  std::vector<bool> windowed(num_layers, false);
  if (config.get_bool("use_sliding_window", false)) {
    if (!window && types) config.refuse("sliding_window", "is missing although use_sliding_window is true");
    if (window && types) windowed = *types;
    if (window && !types) {
      const int first = config.get_int("max_window_layers", 0, kMaxLayers);
      for (int l = first; l < num_layers; ++l) windowed[l] = true;
    }
  } else if (types && *types != windowed) {
    config.refuse("layer_types", "names sliding_attention although use_sliding_window is not true");
  }
  set_windows(config, window, std::move(windowed), spec);
}

ModelSpec finish(const Fields& config, const GqaSpec& attention, const NormSpec& norm, ModelSpec spec) {
  spec.final_norm = norm;
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions)};
  spec.layers.assign(spec.layers.size(), pre_norm_layer(attention, read_gated_ffn(config), norm));
  read_windows(config, spec);
  return spec;
}

// Qwen 1: Qwen 2 in other words. Beyond seq_length the original stretches the rotation and the scores.
ModelSpec read_qwen1(const Fields& config) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false});
  if (config.find_int("kv_channels", 1, kMaxHeadDim).value_or(attention.head_dim) != attention.head_dim)
    config.refuse("kv_channels", "must be hidden_size over num_attention_heads");
  attention.qkv_bias = true;
  const int both = config.get_int("intermediate_size", 2, 2 * kMaxIntermediate);
  const double eps = config.find_positive("layer_norm_epsilon", 1).value_or(1e-6);
  spec.final_norm = {.kind = NormSpec::Kind::kRms, .eps = static_cast<float>(eps)};
  const double theta = find_theta(config, "rotary_emb_base").value_or(10000);
  const bool stretches_rotation = config.get_bool("use_dynamic_ntk", true);
  const bool stretches_scores = config.get_bool("use_logn_attn", true);
  const int trained = config.find_int("seq_length", 1, kMaxPositions).value_or(spec.max_positions);
  if ((stretches_rotation || stretches_scores) && trained < spec.max_positions) {
    spec.max_positions = trained;
    spec.why_no_longer = "beyond " + std::to_string(trained) +
                         " positions its rotation and scores are stretched, which is not supported";
  }
  if (!config.get_bool("no_bias", true)) config.refuse("no_bias", "is not supported when false");
  // In what numbers the original computes, what it does when trained, and what it does not read.
  config.ignore({"bf16", "fp16", "fp32", "softmax_in_fp32", "attn_dropout_prob", "emb_dropout_prob", "onnx_safe",
                 "scale_attn_weights", "use_cache_kernel", "use_cache_quantization"});
  const DenseFfnSpec ffn{.intermediate_size = both / 2};
  set_uniform_layers(config, pre_norm_layer(attention, ffn, spec.final_norm),
                     RopeSpec{.theta = theta, .scaling = {}, .rotary_dim = attention.head_dim}, spec);
  return spec;
}

ModelSpec read_qwen2(const Fields& config) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size);
  attention.qkv_bias = true;
  config.get_bool("attention_bias", false);  // whatever it says
  return finish(config, attention, read_rms_norm(config), std::move(spec));
}

ModelSpec read_qwen3(const Fields& config) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_head_dim = true});
  attention.qkv_bias = attention.output_bias = config.get_bool("attention_bias", false);
  attention.head_norm = read_rms_norm(config);
  return finish(config, attention, attention.head_norm, std::move(spec));
}

ModelSpec read_qwen2_vl(const Fields& config) {
  return read_text_part(config, {}, read_qwen2);
}

// Their text is rotated as Qwen3's where the configuration names no base.
ModelSpec read_qwen3_vl(const Fields& config) {
  return read_text_part(config, {{"rope_theta", 500000.0}, {"head_dim", 128}}, read_qwen3);
}

constexpr StoredName kQwen1Modules[] = {{"input_layernorm", "ln_1"},         {"self_attn.q_proj", "attn.c_attn"},
                                        {"self_attn.k_proj", "attn.c_attn"}, {"self_attn.v_proj", "attn.c_attn"},
                                        {"self_attn.o_proj", "attn.c_proj"}, {"post_attention_layernorm", "ln_2"},
                                        {"mlp.gate_proj", "mlp.w2"},         {"mlp.up_proj", "mlp.w1"},
                                        {"mlp.down_proj", "mlp.c_proj"}};

// Probabilities among all experts, divided by the sum of the chosen ones' where norm_topk_prob says so.
MoeFfnSpec read_qwen_experts(const Fields& config, const ModelSpec& spec) {
  MoeFfnSpec ffn = read_experts(config, spec, read_gated_ffn(config));
  ffn.rule.renormalise = config.get_bool("norm_topk_prob", false);
  return ffn;
}

ModelSpec read_qwen2_moe(const Fields& config) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size);
  attention.qkv_bias = config.get_bool("qkv_bias", true);
  MoeFfnSpec experts = read_qwen_experts(config, spec);
  experts.shared_size = config.get_int("shared_expert_intermediate_size", 1, kMaxIntermediate);
  experts.has_shared_gate = true;
  if (config.get_bool("use_sliding_window", false) && config.find("layer_types") == nullptr)
    config.refuse("use_sliding_window", "without layer_types is not supported for this architecture");
  spec = finish(config, attention, read_rms_norm(config), std::move(spec));
  set_experts(experts, read_sparse_steps(config, spec.num_layers()), spec);
  return spec;
}

ModelSpec read_qwen3_moe(const Fields& config) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size);
  attention.qkv_bias = attention.output_bias = config.get_bool("attention_bias", false);
  attention.head_norm = spec.final_norm = read_rms_norm(config);
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions)};
  spec.layers.assign(spec.layers.size(), pre_norm_layer(attention, read_gated_ffn(config), spec.final_norm));
  set_experts(read_qwen_experts(config, spec), read_sparse_steps(config, spec.num_layers()), spec);
  const std::optional<int> window = read_window(config);
  const bool is_windowed = window && config.get_bool("use_sliding_window", false);
  set_windows(config, window, std::vector<bool>(spec.layers.size(), is_windowed), spec);
  return spec;
}

ModelSpec read_qwen3_vl_moe(const Fields& config) {
  return read_text_part(config, {{"rope_theta", 500000.0}, {"norm_topk_prob", true}}, read_qwen3_moe);
}

constexpr StoredName kStackedExperts[] = {{"mlp.experts.*.gate_proj", "mlp.experts.gate_up_proj"},
                                          {"mlp.experts.*.up_proj", "mlp.experts.gate_up_proj"},
                                          {"mlp.experts.*.down_proj", "mlp.experts.down_proj"}};
constexpr TensorNames stacked_text_names() {
  TensorNames names = text_names(kStackedExperts);
  names.has_transposed_stacks = true;
  return names;
}

}  // namespace

constexpr Architecture kQwen1{"QWenLMHeadModel",
                              "qwen",
                              read_qwen1,
                              {.embedding = "transformer.wte",
                               .layers = "transformer.h",
                               .final_norm = "transformer.ln_f",
                               .modules = kQwen1Modules},
                              "Qwen 1.8B to 72B (the first)",
                              "qwen1-bf16"};
constexpr Architecture kQwen3VlMoe{"Qwen3VLMoeForConditionalGeneration",
                                   "qwen3_vl_moe",
                                   read_qwen3_vl_moe,
                                   stacked_text_names(),
                                   "Qwen3-VL 30B-A3B, 235B-A22B: text",
                                   "qwen3-vl-moe"};
constexpr Architecture kQwen2Moe{"Qwen2MoeForCausalLM",
                                 "qwen2_moe",
                                 read_qwen2_moe,
                                 {.modules = kOneSharedExpert},
                                 "Qwen1.5-MoE A2.7B, Qwen2 57B-A14B",
                                 "qwen2-moe"};
constexpr Architecture kQwen3Moe{"Qwen3MoeForCausalLM",
                                 "qwen3_moe",
                                 read_qwen3_moe,
                                 {},
                                 "Qwen3 30B-A3B, 235B-A22B, Qwen3-Coder",
                                 "qwen3-moe"};
constexpr Architecture kQwen2{
    "Qwen2ForCausalLM",   "qwen2", read_qwen2, {}, "Qwen1.5, Qwen2, Qwen2.5, QwQ; distilled DeepSeek-R1",
    "qwen2 qwen2-windows qwen2-yarn"};
constexpr Architecture kQwen3{"Qwen3ForCausalLM",  "qwen3",           read_qwen3, {},
                              "Qwen3 0.6B to 32B", "qwen3 qwen3-bf16"};
constexpr Architecture kQwen2Vl{"Qwen2VLForConditionalGeneration",
                                "qwen2_vl",
                                read_qwen2_vl,
                                text_names(),
                                "Qwen2-VL: text",
                                "qwen2-vl"};
constexpr Architecture kQwen25Vl{"Qwen2_5_VLForConditionalGeneration",
                                 "qwen2_5_vl",
                                 read_qwen2_vl,
                                 text_names(),
                                 "Qwen2.5-VL: text",
                                 "qwen2.5-vl"};
constexpr Architecture kQwen3Vl{"Qwen3VLForConditionalGeneration",
                                "qwen3_vl",
                                read_qwen3_vl,
                                text_names(),
                                "Qwen3-VL 2B to 32B: text",
                                "qwen3-vl"};

}  // namespace serval
