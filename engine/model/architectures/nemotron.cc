#include "engine/model/architectures/nemotron.h"

#include "engine/model/architectures/decoder_fields.h"

namespace serval {
namespace {

struct Rules {
  std::string_view eps;
  float norm_offset;
  bool has_biases;             // where attention_bias and mlp_bias are absent
  std::optional<double> part;  // of a head that rotates
};

ModelSpec read_squared(const Fields& config, const Rules& rules) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false});
  attention.qkv_bias = attention.output_bias = config.get_bool("attention_bias", rules.has_biases);
  const MlpFfnSpec ffn{.intermediate_size = config.get_int("intermediate_size", 1, kMaxIntermediate),
                       .activation = read_activation(config, "hidden_act", "relu2"),
                       .bias = config.get_bool("mlp_bias", rules.has_biases)};
  spec.final_norm = read_layer_norm(config, rules.eps);
  spec.final_norm.offset = rules.norm_offset;
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions, {.part = rules.part})};
  spec.layers.assign(spec.layers.size(), pre_norm_layer(attention, ffn, spec.final_norm));
  set_windows(config, {}, std::vector<bool>(spec.layers.size(), false), spec);
  return spec;
}

ModelSpec read_nemotron(const Fields& config) {
  return read_squared(config, {.eps = "norm_eps", .norm_offset = 1, .has_biases = false, .part = 0.5});
}

ModelSpec read_jais2(const Fields& config) {
  return read_squared(config, {.eps = "layer_norm_eps", .norm_offset = 0, .has_biases = true, .part = {}});
}

}  // namespace

constexpr Architecture kNemotron{
    "NemotronForCausalLM", "nemotron", read_nemotron, {}, "Nemotron-3 and 4, Minitron 4B and 8B", "nemotron-bf16"};
constexpr Architecture kJais2{"Jais2ForCausalLM", "jais2", read_jais2, {}, "Jais 2 8B and 70B", "jais2-bf16"};

}  // namespace serval
