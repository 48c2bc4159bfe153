#include "engine/model/architectures/qwen.h"

#include "engine/model/architectures/composite.h"
#include "engine/model/architectures/decoder_fields.h"

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

}  // namespace

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
