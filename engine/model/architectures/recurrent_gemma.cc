#include "engine/model/architectures/recurrent_gemma.h"

#include <cmath>
#include <string>
#include <vector>

#include "engine/model/architectures/decoder_fields.h"

namespace serval {
namespace {

// block_types names a pattern that goes on through the layers.
std::vector<bool> read_recurrent(const Fields& config, int num_layers) {
  std::vector<bool> pattern;
  for (const std::string& name : config.find_strings("block_types", 64)) {
    if (name != "recurrent" && name != "attention") config.refuse("block_types", "must hold recurrent and attention");
    pattern.push_back(name == "recurrent");
  }
  if (pattern.empty()) pattern = {true, true, false};
  std::vector<bool> recurrent;
  for (int l = 0; l < num_layers; ++l) recurrent.push_back(pattern[l % pattern.size()]);
  return recurrent;
}

ModelSpec read_recurrent_gemma(const Fields& config) {
  ModelSpec spec;
  spec.vocab_size = config.get_int("vocab_size", 1, kMaxVocab);
  spec.hidden_size = config.get_int("hidden_size", 1, kMaxHidden);
  spec.layers.resize(config.get_int("num_hidden_layers", 1, kMaxLayers));
  // No length is too long for it.
  spec.max_positions = config.find_int("max_position_embeddings", 1, kMaxPositions).value_or(kPositionsOfStates);
  spec.tied_embeddings = config.get_bool("tie_word_embeddings", true);
  spec.embedding_scale = std::sqrt(static_cast<float>(spec.hidden_size));
  spec.final_logit_cap = static_cast<float>(config.find_positive("logits_soft_cap", 1e6).value_or(30));
  spec.final_norm = read_rms_norm(config);
  spec.final_norm.offset = 1;

  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false});
  attention.qkv_bias = config.get_bool("attention_bias", false);
  attention.output_bias = true;
  DenseFfnSpec ffn;
  ffn.intermediate_size = config.get_int("intermediate_size", 2, kMaxIntermediate) / 2;
  ffn.activation = read_activation(config, "hidden_activation", "gelu_pytorch_tanh");
  ffn.bias = true;
  GriffinSpec griffin;
  griffin.width = config.find_int("lru_width", 1, kMaxHidden).value_or(spec.hidden_size);
  griffin.num_heads = attention.num_heads;
  if (griffin.width % griffin.num_heads != 0) config.refuse("lru_width", "must be a multiple of num_attention_heads");
  griffin.taps = config.find_int("conv1d_width", 2, kMaxConvTaps).value_or(griffin.taps);
  griffin.activation = ffn.activation;
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions, {.part = 0.5})};
  // What weights were drawn from, and what follows from others.
  config.ignore({"w_init_variance_scale", "final_w_init_variance_scale", "layers_block_type", "layer_types", "sliding_window",
                 "hidden_act"});

  const int window = config.find_int("attention_window_size", 1, kMaxPositions).value_or(2048);
  const std::vector<bool> recurrent = read_recurrent(config, spec.num_layers());
  for (int l = 0; l < spec.num_layers(); ++l) {
    spec.layers[l] = pre_norm_layer(attention, ffn, spec.final_norm);
    if (recurrent[l]) spec.layers[l].mixer = griffin;
  }
  KvGroupSpec windowed{.window = window, .layers = {}};
  if (window >= spec.max_positions) windowed.window = 0;
  set_groups({windowed, {.keeps_state = true, .layers = {}}}, std::vector<int>(recurrent.begin(), recurrent.end()), spec);
  return spec;
}

constexpr StoredName kModules[] = {{"input_layernorm", "temporal_pre_norm"},
                                   {"post_attention_layernorm", "channel_pre_norm"},
                                   {"self_attn.", "temporal_block."},
                                   {"mlp.", "mlp_block."}};

}  // namespace

constexpr Architecture kRecurrentGemma{"RecurrentGemmaForCausalLM",
                                       "recurrent_gemma",
                                       read_recurrent_gemma,
                                       {.final_norm = "model.final_norm", .modules = kModules, .has_transposed_stacks = true},
                                       "RecurrentGemma 2B, 9B",
                                       "recurrent-gemma"};

}  // namespace serval
