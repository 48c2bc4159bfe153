#include "engine/model/architectures/llama.h"

#include <algorithm>

#include "engine/model/architectures/decoder_fields.h"

namespace serval {
namespace {

ModelSpec read_llama(const Fields& config) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false});
  attention.qkv_bias = attention.output_bias = config.get_bool("attention_bias", false);
  DenseFfnSpec ffn = read_gated_ffn(config);
  ffn.bias = config.get_bool("mlp_bias", false);
  spec.final_norm = read_rms_norm(config);
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions)};
  spec.layers.assign(spec.layers.size(), pre_norm_layer(attention, ffn, spec.final_norm));
  refuse_windows(config, spec);
  set_windows(config, {}, std::vector<bool>(spec.layers.size(), false), spec);
  return spec;
}

ModelSpec read_mistral(const Fields& config) {
  ModelSpec spec = read_frame(config);
  const GqaSpec attention = read_heads(config, spec.hidden_size);
  spec.final_norm = read_rms_norm(config);
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions)};
  spec.layers.assign(spec.layers.size(), pre_norm_layer(attention, read_gated_ffn(config), spec.final_norm));
  // sliding_window, when not null, holds for every layer.
  const std::optional<int> window = read_window(config);
  const std::vector<bool> windowed(spec.layers.size(), window.has_value());
  if (read_layer_types(config, spec.num_layers()).value_or(windowed) != windowed) {
    config.refuse("layer_types", "differs between layers, which is not supported for this architecture");
  }
  set_windows(config, window, windowed, spec);
  return spec;
}

}  // namespace

constexpr Architecture kLlama{"LlamaForCausalLM", "llama", read_llama, {}};
constexpr Architecture kMistral{"MistralForCausalLM", "mistral", read_mistral, {}};

}  // namespace serval
