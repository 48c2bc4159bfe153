#include "engine/model/architectures/cohere.h"

#include <utility>

#include "engine/model/architectures/decoder_fields.h"

namespace serval {
namespace {

// Without layers' windows.
ModelSpec read_command(const Fields& config, double theta_when_absent) {
  constexpr bool kTiesWhenAbsent = true;
  constexpr double kLogitScaleWhenAbsent = 0.0625;
  ModelSpec spec = read_frame(config, kTiesWhenAbsent);
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false});
  attention.qkv_bias = attention.output_bias = config.get_bool("attention_bias", false);
  attention.interleaved_dims = attention.head_dim;
  spec.final_norm = read_layer_norm(config, "layer_norm_eps");
  spec.final_norm.has_bias = false;
  if (config.get_bool("use_qk_norm", false)) {
    attention.head_norm = spec.final_norm;
    attention.head_norm_place = HeadNormPlace::kHeadByHead;
  }
  spec.logit_scale = static_cast<float>(config.find_positive("logit_scale", 1e6).value_or(kLogitScaleWhenAbsent));
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions, {.theta = theta_when_absent})};
  LayerSpec layer = pre_norm_layer(attention, read_gated_ffn(config), spec.final_norm);
  layer.is_parallel = true;
  layer.ffn_norm = {};
  spec.layers.assign(spec.layers.size(), layer);
  return spec;
}

ModelSpec read_cohere(const Fields& config) {
  ModelSpec spec = read_command(config, 500000);
  set_windows(config, {}, std::vector<bool>(spec.layers.size(), false), spec);
  return spec;
}

// Every fourth layer sees everything and rotates nothing.
ModelSpec read_cohere2(const Fields& config) {
  ModelSpec spec = read_command(config, 10000);
  const int pattern = config.find_int("sliding_window_pattern", 1, kMaxLayers).value_or(4);
  std::vector<bool> windowed;
  for (int l = 0; l < spec.num_layers(); ++l) windowed.push_back((l + 1) % pattern != 0);
  windowed = read_layer_types(config, spec.num_layers()).value_or(windowed);
  for (int l = 0; l < spec.num_layers(); ++l)
    if (!windowed[l]) spec.layers[l].rope = kNoRope;
  // What the original says of what the reference has always so.
  config.ignore({"layer_switch", "order_of_interleaved_layers", "position_embedding_type", "rotary_pct",
                 "use_embedding_sharing", "use_gated_activation", "use_parallel_block", "use_parallel_embedding"});
  set_windows(config, read_window(config).value_or(4096), windowed, spec);
  return spec;
}

}  // namespace

constexpr Architecture kCohere{"CohereForCausalLM", "cohere", read_cohere, {}, "Command R and R+, Aya 23 and Expanse",
                              "cohere cohere-norms"};
constexpr Architecture kCohere2{
    "Cohere2ForCausalLM", "cohere2", read_cohere2, {}, "Command R7B, Command A", "cohere2-bf16"};

}  // namespace serval
