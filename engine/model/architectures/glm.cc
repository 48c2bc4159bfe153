#include "engine/model/architectures/glm.h"

#include "engine/model/architectures/composite.h"
#include "engine/model/architectures/decoder_fields.h"

namespace serval {
namespace {

LayerSpec read_layer(const Fields& config, const HeadRules& heads, ModelSpec& spec, RopeSpec& rope) {
  spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size, heads);
  attention.output_bias = false;
  rope = read_rope(config, attention.head_dim, spec.max_positions, {.part = 0.5});
  attention.interleaved_dims = rope.rotary_dim;
  spec.final_norm = read_rms_norm(config, 1.5625e-7);
  return pre_norm_layer(attention, read_gated_ffn(config), spec.final_norm);
}

ModelSpec read_glm(const Fields& config) {
  ModelSpec spec;
  RopeSpec rope;
  const LayerSpec layer = read_layer(config, {.requires_head_dim = true, .bias = true}, spec, rope);
  set_uniform_layers(config, layer, rope, spec);
  return spec;
}

ModelSpec read_sandwich(const Fields& config, const HeadRules& heads) {
  ModelSpec spec;
  RopeSpec rope;
  LayerSpec layer = read_layer(config, heads, spec, rope);
  layer.mixer_post_norm = layer.ffn_post_norm = spec.final_norm;
  set_uniform_layers(config, layer, rope, spec);
  return spec;
}

ModelSpec read_glm4(const Fields& config) {
  return read_sandwich(config, {.requires_head_dim = true, .bias = true});
}

ModelSpec read_glm4v_text(const Fields& config) {
  return read_sandwich(config, {.bias = true});
}

ModelSpec read_glm4v(const Fields& config) {
  return read_text_part(config, {{"rms_norm_eps", 1e-5}, {"partial_rotary_factor", 1.0}}, read_glm4v_text);
}

constexpr StoredName kModules[] = {{"mlp.gate_proj", "mlp.gate_up_proj"},
                                   {"mlp.up_proj", "mlp.gate_up_proj"},
                                   {"mixer_post_norm", "post_self_attn_layernorm"},
                                   {"ffn_post_norm", "post_mlp_layernorm"}};

}  // namespace

constexpr Architecture kGlm{"GlmForCausalLM", "glm", read_glm, {.modules = kModules}, "GLM-4 9B, GLM-Edge", "glm"};
constexpr Architecture kGlm4{"Glm4ForCausalLM",
                             "glm4",
                             read_glm4,
                             {.modules = kModules},
                             "GLM-4-0414 9B, 32B; GLM-Z1",
                             "glm4"};
constexpr Architecture kGlm4v{"Glm4vForConditionalGeneration",
                              "glm4v",
                              read_glm4v,
                              text_names(kModules),
                              "GLM-4.1V 9B, GLM-4.6V Flash: text",
                              "glm4v"};

}  // namespace serval
