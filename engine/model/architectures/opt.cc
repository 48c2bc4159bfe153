#include "engine/model/architectures/opt.h"

#include <cmath>
#include <utility>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/plain_decoder.h"

namespace serval {
namespace {

constexpr int kPositionsUnused = 2;

ModelSpec read_opt(const Fields& config) {
  PlainDecoder decoder =
      read_plain_decoder(config, {.intermediate = "ffn_dim", .usual_activation = "relu", .eps = {}});
  decoder.spec.positions = PositionTable::kLearned;
  decoder.spec.positions_unused = kPositionsUnused;
  decoder.attention.qkv_bias = decoder.attention.output_bias = decoder.ffn.bias =
      config.get_bool("enable_bias", true);
  if (!config.get_bool("do_layer_norm_before", true))
    config.refuse("do_layer_norm_before", "is not supported when false (norms behind the residual, as of opt-350m)");
  const auto embedding = config.find_int("word_embed_proj_dim", 1, kMaxHidden);
  if (embedding.value_or(decoder.spec.hidden_size) != decoder.spec.hidden_size)
    config.refuse("word_embed_proj_dim", "must be hidden_size: projected embeddings are not supported");
  if (config.get_bool("_remove_final_layer_norm", false))
    config.refuse("_remove_final_layer_norm", "is not supported when true");
  if (!config.get_bool("layer_norm_elementwise_affine", true))
    config.refuse("layer_norm_elementwise_affine", "is not supported when false");
  return made_of(config, std::move(decoder));
}

ModelSpec read_xglm(const Fields& config) {
  PlainDecoder decoder = read_plain_decoder(config, {.hidden = "d_model",
                                                     .layers = "num_layers",
                                                     .heads = "attention_heads",
                                                     .intermediate = "ffn_dim",
                                                     .usual_activation = "gelu",
                                                     .eps = {}});
  if (decoder.spec.hidden_size < 4) config.refuse("d_model", "must be 4 at least");
  decoder.spec.positions = PositionTable::kSinusoids;
  decoder.spec.positions_unused = kPositionsUnused;
  if (config.get_bool("scale_embedding", true))
    decoder.spec.embedding_scale = static_cast<float>(std::sqrt(double(decoder.spec.hidden_size)));
  return made_of(config, std::move(decoder));
}

constexpr StoredName kModules[] = {{"self_attn.o_proj", "self_attn.out_proj"},
                                   {"input_layernorm", "self_attn_layer_norm"},
                                   {"post_attention_layernorm", "final_layer_norm"},
                                   {"mlp.up_proj", "fc1"},
                                   {"mlp.down_proj", "fc2"}};
// Tables that old exporters saved.
constexpr std::string_view kSinusoids[] = {"embed_positions.weights"};

}  // namespace

constexpr Architecture kOpt{"OPTForCausalLM",
                            "opt",
                            read_opt,
                            {.embedding = "model.decoder.embed_tokens",
                             .positions = "model.decoder.embed_positions",
                             .layers = "model.decoder.layers",
                             .final_norm = "model.decoder.final_layer_norm",
                             .optional_prefix = "model.",
                             .modules = kModules},
                            "OPT 125M to 66B but for 350M, Galactica",
                            "opt"};
constexpr Architecture kXglm{"XGLMForCausalLM",
                             "xglm",
                             read_xglm,
                             {.final_norm = "model.layer_norm", .modules = kModules, .ignored = kSinusoids},
                             "XGLM 564M to 7.5B, Incoder",
                             "xglm"};

}  // namespace serval
