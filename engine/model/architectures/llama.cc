#include "engine/model/architectures/llama.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/model/architectures/composite.h"
#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/expert_fields.h"
#include "engine/model/architectures/mla_fields.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

ModelSpec read_llama(const Fields& config) {
  ModelSpec spec = read_frame(config);
  const GqaSpec attention =
      read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false, .bias = false});
  DenseFfnSpec ffn = read_gated_ffn(config);
  ffn.bias = config.get_bool("mlp_bias", false);
  spec.final_norm = read_rms_norm(config);
  set_uniform_layers(config, pre_norm_layer(attention, ffn, spec.final_norm),
                     read_rope(config, attention.head_dim, spec.max_positions), spec);
  return spec;
}

// Some layers look at pictures alone: without one they are passed over.
ModelSpec read_mllama_text(const Fields& config) {
  ModelSpec spec = read_llama(config);
  std::vector<int64_t> crossing = config.find_integers("cross_attention_layers");
  if (config.find("cross_attention_layers") == nullptr) crossing = {3, 8, 13, 18, 23, 28, 33, 38};
  std::vector<LayerSpec> kept;
  spec.kv_groups[0].layers.clear();
  for (int l = 0; l < spec.num_layers(); ++l) {
    if (std::find(crossing.begin(), crossing.end(), l) != crossing.end()) {
      spec.layers_unused.push_back(l);
      continue;
    }
    spec.kv_groups[0].layers.push_back(static_cast<int>(kept.size()));
    kept.push_back(spec.layers[l]);
    kept.back().stored_index = l;
  }
  if (kept.empty()) config.refuse("cross_attention_layers", "leaves no layer for text");
  spec.layers = std::move(kept);
  spec.embedding_rows_unused = 8;
  return spec;
}

ModelSpec read_mllama(const Fields& config) {
  return read_text_part(config,
                        {{"vocab_size", 128256},
                         {"hidden_size", 4096},
                         {"intermediate_size", 14336},
                         {"num_hidden_layers", 40},
                         {"num_attention_heads", 32},
                         {"num_key_value_heads", 8},
                         {"max_position_embeddings", 131072},
                         {"rms_norm_eps", 1e-5},
                         {"rope_theta", 500000.0}},
                        read_mllama_text);
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

ModelSpec read_ministral3(const Fields& config) {
  ModelSpec spec = read_frame(config);
  const GqaSpec attention = read_heads(config, spec.hidden_size);
  spec.final_norm = read_rms_norm(config, 1e-5);
  const RopeSpec of_queries =
      read_rope(config, attention.head_dim, spec.max_positions, {.theta = 1e6, .grows = true});
  RopeSpec of_keys = of_queries;
  of_keys.growth = 0;
  LayerSpec layer = pre_norm_layer(attention, read_gated_ffn(config), spec.final_norm);
  if (of_queries.growth > 0) layer.query_rope = 1;
  set_uniform_layers(config, layer, of_keys, spec);
  if (layer.query_rope) spec.ropes.push_back(of_queries);
  return spec;
}

// Latent attention and experts: DeepSeek's, chosen by probabilities; whole queries grow with their positions.
ModelSpec read_mistral4(const Fields& config) {
  ModelSpec spec = read_frame(config);
  MlaSpec mla = read_mla(config);
  spec.final_norm = read_rms_norm(config);
  const double usual_part = static_cast<double>(mla.rotary_dim) / (mla.plain_dim + mla.rotary_dim);
  RopeSpec rope = read_rope(config, mla.plain_dim + mla.rotary_dim, spec.max_positions,
                            {.part = usual_part, .grows = true});
  if (rope.rotary_dim != mla.rotary_dim) config.refuse("partial_rotary_factor", "must leave qk_rope_head_dim dimensions");
  const double growth = std::exchange(rope.growth, 0);
  LayerSpec layer = pre_norm_layer({}, read_gated_ffn(config), spec.final_norm);
  layer.mixer = mla;
  if (growth > 0) layer.query_growth = 1;
  set_uniform_layers(config, layer, rope, spec);
  if (growth > 0) spec.ropes.push_back(growth_alone(growth, rope.growth_span));
  MoeFfnSpec experts = read_corrected_experts(config, spec);
  experts.has_correction = false;
  experts.rule.score = RoutingRule::Score::kSoftmax;
  set_experts_behind_dense(config, experts, 0, spec);
  return spec;
}

ModelSpec read_mistral3(const Fields& config) {
  const Fields text = config.get_object("text_config");
  const std::string type = text.find_string("model_type").value_or("mistral");
  if (type == "ministral3") return read_text_part(config, {}, read_ministral3);
  if (type == "mistral4") {
    ModelSpec spec = read_text_part(config, {}, read_mistral4);
    spec.names.modules = kStackedExperts;
    return spec;
  }
  if (type != "mistral")
    text.refuse("model_type", in_quotes(type) + " is not supported; supported are mistral, ministral3, mistral4");
  // What its text leaves out has the values of Mistral Small 3.1.
  return read_text_part(config,
                        {{"hidden_size", 5120},
                         {"head_dim", 128},
                         {"intermediate_size", 32768},
                         {"max_position_embeddings", 131072},
                         {"num_attention_heads", 32},
                         {"num_hidden_layers", 40},
                         {"num_key_value_heads", 8},
                         {"rms_norm_eps", 1e-5},
                         {"rope_theta", 1e9},
                         {"vocab_size", 131072}},
                        read_mistral);
}

// The published layout; the reference reads and writes it whatever it holds in memory.
ModelSpec read_mixtral(const Fields& config) {
  return read_mistral_with(config, [&](const ModelSpec& spec) {
    return read_experts(config, spec, read_gated_ffn(config),
                        {.count = {"num_local_experts"}, .width = "intermediate_size"});
  });
}

}  // namespace

constexpr Architecture kLlama{
    "LlamaForCausalLM",
    "llama",
    read_llama,
    {},
    "Llama 1, 2, 3, 3.1, 3.2, 3.3; Yi, TinyLlama, SmolLM 1 and 2, Vicuna, OpenLLaMA, DeepSeek LLM",
    "llama2 llama2-f16 llama31 llama-bias llama-odd-heads"};
constexpr Architecture kMistral{
    "MistralForCausalLM", "mistral", read_mistral, {}, "Mistral 7B, NeMo, Small 2 and 3, Zephyr", "mistral"};
constexpr Architecture kMixtral{"MixtralForCausalLM", "mixtral",
                                read_mixtral,         {.modules = kMixtralExperts},
                                "Mixtral 8x7B, 8x22B", "mixtral mixtral-bf16"};

constexpr Architecture kMinistral3{"Ministral3ForCausalLM", "ministral3", read_ministral3, {},
                                   "Ministral 3 without pictures", "ministral3"};
constexpr Architecture kMistral3{"Mistral3ForConditionalGeneration",
                                 "mistral3",
                                 read_mistral3,
                                 text_names(),
                                 "Mistral Small 3.1, 3.2, 4, Magistral, Ministral 3, Devstral 2: text",
                                 "mistral3 mistral3-ministral mistral3-mistral4"};

constexpr Architecture kMistral4{"Mistral4ForCausalLM",
                                 "mistral4",
                                 read_mistral4,
                                 {.modules = kStackedExperts},
                                 "Mistral Small 4 without pictures",
                                 "mistral4"};

constexpr Architecture kMllama{"MllamaForConditionalGeneration",
                               "mllama",
                               read_mllama,
                               text_names(),
                               "Llama 3.2 11B and 90B Vision: text",
                               "mllama"};

}  // namespace serval
