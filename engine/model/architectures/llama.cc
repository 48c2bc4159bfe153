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

// Layers with the feed-forward part that read_ffn makes of a model that has its frame.
template <class ReadFfn>
ModelSpec read_mistral_with(const Fields& config, const ReadFfn& read_ffn) {
  ModelSpec spec = read_frame(config);
  const GqaSpec attention = read_heads(config, spec.hidden_size);
  spec.final_norm = read_rms_norm(config);
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions)};
  spec.layers.assign(spec.layers.size(), pre_norm_layer(attention, read_ffn(spec), spec.final_norm));
  // sliding_window, when not null, holds for every layer.
  const std::optional<int> window = read_window(config);
  const std::vector<bool> windowed(spec.layers.size(), window.has_value());
  if (read_layer_types(config, spec.num_layers()).value_or(windowed) != windowed) {
    config.refuse("layer_types", "differs between layers, which is not supported for this architecture");
  }
  set_windows(config, window, windowed, spec);
  return spec;
}

ModelSpec read_mistral(const Fields& config) {
  return read_mistral_with(config, [&](const ModelSpec&) { return read_gated_ffn(config); });
}

// The published layout; the reference reads and writes it whatever it holds in memory.
ModelSpec read_mixtral(const Fields& config) {
  config.get_bool("output_router_logits", false);  // asks for a loss of training
  return read_mistral_with(config, [&](const ModelSpec& spec) {
    const DenseFfnSpec expert = read_gated_ffn(config);
    MoeFfnSpec ffn{.hidden_size = spec.hidden_size,
                   .intermediate_size = expert.intermediate_size,
                   .num_experts = config.get_int("num_local_experts", 1, kMaxExperts),
                   .activation = expert.activation};
    ffn.top_k = config.get_int("num_experts_per_tok", 1, std::min(ffn.num_experts, kMaxExpertsPerRow));
    return ffn;
  });
}

}  // namespace

constexpr Architecture kLlama{
    "LlamaForCausalLM",
    "llama",
    read_llama,
    {},
    "Llama 1, 2, 3, 3.1, 3.2, 3.3; Yi, TinyLlama, SmolLM 1 and 2, Vicuna, DeepSeek LLM",
    "llama2 llama2-f16 llama31 llama-bias"};
constexpr Architecture kMistral{
    "MistralForCausalLM", "mistral", read_mistral, {}, "Mistral 7B, NeMo, Small 2 and 3, Zephyr", "mistral"};
constexpr Architecture kMixtral{"MixtralForCausalLM",  "mixtral", read_mixtral, {}, "Mixtral 8x7B, 8x22B",
                                "mixtral mixtral-bf16"};

}  // namespace serval
