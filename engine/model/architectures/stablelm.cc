#include "engine/model/architectures/stablelm.h"

#include "engine/model/architectures/decoder_fields.h"

namespace serval {
namespace {

ModelSpec read_stablelm(const Fields& config) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size);
  attention.qkv_bias = config.get_bool("use_qkv_bias", false);
  spec.final_norm = read_layer_norm(config, "layer_norm_eps");
  if (config.get_bool("qk_layernorm", false)) {
    attention.head_norm = spec.final_norm;
    attention.head_norm_place = HeadNormPlace::kHeadByHead;
  }
  config.ignore({"norm_eps"});  // what published files say beside it
  const RopeRules rules{.part = config.find_number("rope_pct", 0.01, 1).value_or(0.25)};
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions, rules)};
  LayerSpec layer = pre_norm_layer(attention, read_gated_ffn(config), spec.final_norm);
  layer.is_parallel = config.get_bool("use_parallel_residual", false);
  if (layer.is_parallel) layer.ffn_norm = {};
  spec.layers.assign(spec.layers.size(), layer);
  set_windows(config, {}, std::vector<bool>(spec.layers.size(), false), spec);
  return spec;
}

constexpr StoredName kModules[] = {{"self_attn.q_norm", "self_attn.q_layernorm.norms"},
                                   {"self_attn.k_norm", "self_attn.k_layernorm.norms"}};

}  // namespace

constexpr Architecture kStableLm{"StableLmForCausalLM",
                                 "stablelm",
                                 read_stablelm,
                                 {.modules = kModules, .has_tensor_per_head_norm = true},
                                 "StableLM 3B, StableLM 2 1.6B and 12B, Zephyr 3B, StableCode 3B",
                                 "stablelm-bf16 stablelm-12b-bf16"};

}  // namespace serval
