#include "engine/model/architectures/gpt2.h"

#include <utility>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/plain_decoder.h"

namespace serval {
namespace {

ModelSpec read_gpt2(const Fields& config) {
  PlainDecoder decoder = read_plain_decoder(
      config, {.hidden = "n_embd", .layers = "n_layer", .heads = "n_head", .positions = "n_positions", .intermediate = "n_inner"});
  config.find_int("n_ctx", 1, kMaxPositions);  // the context, said twice in old configurations
  decoder.spec.positions = PositionTable::kLearned;
  if (!config.get_bool("scale_attn_weights", true)) decoder.attention.scale = 1;
  config.get_bool("reorder_and_upcast_attn", false);  // the same numbers: scores are f32 here
  GqaSpec attention = decoder.attention;
  ModelSpec spec = made_of(config, std::move(decoder));
  if (config.get_bool("scale_attn_by_inverse_layer_idx", false)) {
    const float scale = attention.scale;
    for (int l = 0; l < spec.num_layers(); ++l) {
      attention.scale = scale / static_cast<float>(l + 1);
      spec.layers[l].mixer = attention;
    }
  }
  return spec;
}

// GPT: norms behind the residual. Its "gelu" is the approximation.
ModelSpec read_gpt(const Fields& config) {
  PlainDecoder decoder = read_plain_decoder(config, {.hidden = "n_embd",
                                                     .layers = "n_layer",
                                                     .heads = "n_head",
                                                     .positions = "n_positions",
                                                     .intermediate = {},
                                                     .activation = "afn",
                                                     .usual_activation = "gelu"});
  if (decoder.ffn.activation == Activation::kGelu) decoder.ffn.activation = Activation::kGeluTanh;
  config.find_int("n_ctx", 1, kMaxPositions);  // the context, said twice
  config.ignore({"n_special", "predict_special_tokens"});
  decoder.spec.positions = PositionTable::kLearned;
  decoder.norms_residual = true;
  return made_of(config, std::move(decoder));
}

constexpr StoredName kModules[] = {{"input_layernorm", "ln_1"},         {"self_attn.q_proj", "attn.c_attn"},
                                   {"self_attn.k_proj", "attn.c_attn"}, {"self_attn.v_proj", "attn.c_attn"},
                                   {"self_attn.o_proj", "attn.c_proj"}, {"post_attention_layernorm", "ln_2"},
                                   {"mixer_post_norm", "ln_1"},         {"ffn_post_norm", "ln_2"},
                                   {"mlp.up_proj", "mlp.c_fc"},         {"mlp.down_proj", "mlp.c_proj"}};
// The causal mask, which old exporters saved.
constexpr std::string_view kIgnored[] = {".attn.bias", ".attn.masked_bias"};

}  // namespace

constexpr Architecture kGpt{"OpenAIGPTLMHeadModel",
                            "openai-gpt",
                            read_gpt,
                            {.embedding = "transformer.tokens_embed",
                             .positions = "transformer.positions_embed",
                             .layers = "transformer.h",
                             .optional_prefix = "transformer.",
                             .modules = kModules,
                             .has_transposed_layers = true,
                             .ignored = kIgnored},
                            "GPT (openai-gpt)",
                            "gpt"};
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
