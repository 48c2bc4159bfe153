#include "engine/model/architectures/granite.h"

#include "engine/model/architectures/decoder_fields.h"

namespace serval {
namespace {

ModelSpec read_granite(const Fields& config) {
  ModelSpec spec = read_frame(config);
  const auto multiplier = [&](std::string_view field) {
    return static_cast<float>(config.find_positive(field, 1e6).value_or(1));
  };
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false, .bias = false});
  attention.scale = multiplier("attention_multiplier");
  spec.embedding_scale = multiplier("embedding_multiplier");
  spec.residual_scale = multiplier("residual_multiplier");
  spec.logit_scale = 1 / multiplier("logits_scaling");
  DenseFfnSpec ffn = read_gated_ffn(config);
  ffn.bias = config.get_bool("mlp_bias", false);
  spec.final_norm = read_rms_norm(config);
  set_uniform_layers(config, pre_norm_layer(attention, ffn, spec.final_norm),
                     read_rope(config, attention.head_dim, spec.max_positions), spec);
  return spec;
}

}  // namespace

constexpr Architecture kGranite{"GraniteForCausalLM", "granite",     read_granite, {},
                                "Granite 3.x 2B, 8B", "granite"};

}  // namespace serval
