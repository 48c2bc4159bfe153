#include "engine/model/architectures.h"

#include <cmath>
#include <stdexcept>
#include <utility>

#include "kernels/base/shown.h"

namespace serval {
namespace {

// Windowed and unwindowed layers cannot share block tables: the first forget, the second do not. A model with
// layers of one kind has one group; with both, group 0 is the full one.
void assign_kv_groups(const ModelConfig& config, ModelSpec& spec) {
  KvGroupSpec full;
  KvGroupSpec windowed{.window = config.sliding_window, .layers = {}};
  for (int l = 0; l < config.num_layers; ++l) {
    (config.layer_is_windowed[l] ? windowed : full).layers.push_back(l);
  }
  for (KvGroupSpec* group : {&full, &windowed}) {
    if (group->layers.empty()) continue;
    for (const int l : group->layers) {
      std::get<GqaSpec>(spec.layers[l].attention).kv_group = static_cast<int>(spec.kv_groups.size());
    }
    spec.kv_groups.push_back(std::move(*group));
  }
}

// The pre-norm decoder with rotary grouped-query attention and a gated feed-forward (Touvron et al. 2023)
// that the others vary.
ModelSpec llama(const ModelConfig& config) {
  const GqaSpec attention{.num_heads = config.num_heads,
                          .num_kv_heads = config.num_kv_heads,
                          .head_dim = config.head_dim,
                          .qkv_bias = config.attention_bias,
                          .output_bias = config.attention_output_bias,
                          .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.head_dim)))};
  const DenseFfnSpec ffn{.intermediate_size = config.intermediate_size,
                         .activation = config.hidden_act,
                         .bias = config.mlp_bias};
  ModelSpec spec;
  spec.architecture = config.architecture;
  spec.vocab_size = config.vocab_size;
  spec.hidden_size = config.hidden_size;
  spec.max_positions = config.max_positions;
  spec.norm_eps = static_cast<float>(config.rms_norm_eps);
  spec.tied_embeddings = config.tie_word_embeddings;
  spec.weight_dtype = config.dtype;
  spec.rope = {.theta = config.rope_theta, .scaling = config.rope_scaling, .rotary_dim = config.head_dim};
  spec.layers.assign(config.num_layers, LayerSpec{attention, ffn});
  assign_kv_groups(config, spec);
  return spec;
}

ModelSpec qwen2(const ModelConfig& config) {
  ModelSpec spec = llama(config);
  for (LayerSpec& layer : spec.layers) {
    auto& attention = std::get<GqaSpec>(layer.attention);
    attention.qkv_bias = true;  // whatever attention_bias says
    attention.output_bias = false;
  }
  return spec;
}

ModelSpec qwen3(const ModelConfig& config) {
  ModelSpec spec = llama(config);
  for (LayerSpec& layer : spec.layers) std::get<GqaSpec>(layer.attention).qk_norm = true;
  return spec;
}

constexpr Architecture kArchitectures[] = {
    {"LlamaForCausalLM",
     "llama",
     llama,
     {.reads_attention_bias = true, .reads_mlp_bias = true, .requires_num_kv_heads = false}},
    {"MistralForCausalLM", "mistral", llama, {.window = WindowRule::kAllLayers}},
    {"Qwen2ForCausalLM", "qwen2", qwen2, {.window = WindowRule::kPerLayer, .reads_attention_bias = true}},
    {"Qwen3ForCausalLM",
     "qwen3",
     qwen3,
     {.window = WindowRule::kPerLayer, .reads_attention_bias = true, .requires_head_dim = true}},
};

const Architecture& find_row(std::string_view Architecture::*key, std::string_view wanted, const char* what) {
  std::string supported;
  for (const Architecture& row : kArchitectures) {
    if (row.*key == wanted) return row;
    supported += (supported.empty() ? "" : ", ") + std::string(row.*key);
  }
  throw std::runtime_error("the " + std::string(what) + " " + in_quotes(wanted) +
                           " is not supported; supported are " + supported);
}

}  // namespace

std::span<const Architecture> architectures() {
  return kArchitectures;
}

const Architecture& find_architecture(std::string_view name) {
  return find_row(&Architecture::name, name, "architecture");
}

const Architecture& find_architecture_of_type(std::string_view model_type) {
  return find_row(&Architecture::model_type, model_type, "model_type");
}

ModelSpec make_model_spec(const ModelConfig& config) {
  return find_architecture(config.architecture).make_spec(config);
}

}  // namespace serval
