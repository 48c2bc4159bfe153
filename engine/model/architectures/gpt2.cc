#include "engine/model/architectures/gpt2.h"

#include <cmath>
#include <string>

#include "engine/model/architectures/decoder_fields.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

Activation read_activation(const Fields& config) {
  struct Name {
    std::string_view name;
    Activation activation;
  };
  constexpr Name kNames[] = {{"gelu_new", Activation::kGeluTanh},
                             {"gelu_pytorch_tanh", Activation::kGeluTanh},
                             {"gelu", Activation::kGelu},
                             {"relu", Activation::kRelu},
                             {"silu", Activation::kSilu}};
  const std::string wanted = config.find_string("activation_function").value_or("gelu_new");
  std::string supported;
  for (const auto& [name, activation] : kNames) {
    if (name == wanted) return activation;
    supported += (supported.empty() ? "" : ", ") + std::string(name);
  }
  config.refuse("activation_function", in_quotes(wanted) + " is not supported; supported are " + supported);
}

ModelSpec read_gpt2(const Fields& config) {
  ModelSpec spec;
  spec.vocab_size = config.get_int("vocab_size", 1, kMaxVocab);
  spec.hidden_size = config.get_int("n_embd", 1, kMaxHidden);
  spec.layers.resize(config.get_int("n_layer", 1, kMaxLayers));
  spec.max_positions = config.get_int("n_positions", 1, kMaxPositions);
  config.find_int("n_ctx", 1, kMaxPositions);  // the context, said twice in old configurations
  spec.tied_embeddings = config.get_bool("tie_word_embeddings", true);
  spec.learned_positions = true;

  GqaSpec attention{.qkv_bias = true, .output_bias = true};
  attention.num_heads = attention.num_kv_heads = config.get_int("n_head", 1, kMaxHeads);
  attention.head_dim = spec.hidden_size / attention.num_heads;
  if (spec.hidden_size % attention.num_heads != 0 || attention.head_dim % 8 != 0 ||
      attention.head_dim > kMaxHeadDim) {
    config.refuse("n_embd", "must be n_head times a multiple of 8 of at most " + std::to_string(kMaxHeadDim));
  }
  if (config.get_bool("scale_attn_weights", true))
    attention.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(attention.head_dim)));
  config.get_bool("reorder_and_upcast_attn", false);  // the same numbers: scores are f32 here

  const MlpFfnSpec ffn{
      .intermediate_size = config.find_int("n_inner", 1, kMaxIntermediate).value_or(4 * spec.hidden_size),
      .activation = read_activation(config),
      .bias = true};
  const double eps = config.find_positive("layer_norm_epsilon", 1).value_or(1e-5);
  spec.final_norm = {.kind = NormSpec::Kind::kLayer, .eps = static_cast<float>(eps)};
  spec.ropes = {RopeSpec{}};  // turns no dimension
  spec.layers.assign(spec.layers.size(), pre_norm_layer(attention, ffn, spec.final_norm));
  set_windows(config, {}, std::vector<bool>(spec.layers.size(), false), spec);
  return spec;
}

constexpr StoredName kModules[] = {{"input_layernorm", "ln_1"},         {"self_attn.q_proj", "attn.c_attn"},
                                   {"self_attn.k_proj", "attn.c_attn"}, {"self_attn.v_proj", "attn.c_attn"},
                                   {"self_attn.o_proj", "attn.c_proj"}, {"post_attention_layernorm", "ln_2"},
                                   {"mlp.up_proj", "mlp.c_fc"},         {"mlp.down_proj", "mlp.c_proj"}};
// The causal mask, which old exporters saved.
constexpr std::string_view kIgnored[] = {".attn.bias", ".attn.masked_bias"};

}  // namespace

constexpr Architecture kGpt2{"GPT2LMHeadModel",
                             "gpt2",
                             read_gpt2,
                             {.embedding = "transformer.wte",
                              .positions = "transformer.wpe",
                              .layers = "transformer.h",
                              .final_norm = "transformer.ln_f",
                              .optional_prefix = "transformer.",
                              .modules = kModules,
                              .has_transposed_layers = true,
                              .ignored = kIgnored},
                             "GPT-2, DistilGPT-2",
                             "gpt2 gpt2-bare"};

}  // namespace serval
