#include "engine/model/architectures/opt.h"

#include <cmath>
#include <utility>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/plain_decoder.h"

namespace serval {
namespace {

constexpr int kPositionsUnused = 2;

PlainDecoder read_opt_decoder(const Fields& config) {
  PlainDecoder decoder =
      read_plain_decoder(config, {.intermediate = "ffn_dim", .usual_activation = "relu", .eps = {}});
  decoder.spec.positions = PositionTable::kLearned;
  decoder.spec.positions_unused = kPositionsUnused;
  decoder.attention.qkv_bias = decoder.attention.output_bias = decoder.ffn.bias =
      config.get_bool("enable_bias", true);
  config.ignore({"learned_embeddings"});  // as they always are
  decoder.norms_residual = !config.get_bool("do_layer_norm_before", true);
  const int hidden = decoder.spec.hidden_size;
  const int embedding = config.find_int("word_embed_proj_dim", 1, hidden).value_or(hidden);
  if (embedding < hidden) decoder.spec.embedding_size = embedding;
  if (config.get_bool("_remove_final_layer_norm", false))
    config.refuse("_remove_final_layer_norm", "is not supported when true");
  if (!config.get_bool("layer_norm_elementwise_affine", true))
    config.refuse("layer_norm_elementwise_affine", "is not supported when false");
  return decoder;
}

ModelSpec read_opt(const Fields& config) {
  return made_of(config, read_opt_decoder(config));
}

// Queries have the scale of scores in them.
ModelSpec read_int8_opt(const Fields& config) {
  PlainDecoder decoder = read_opt_decoder(config);
  decoder.attention.scale = 1;
  return made_of(config, std::move(decoder));
}

// BioGPT names another epsilon than the reference uses.
ModelSpec read_biogpt(const Fields& config) {
  PlainDecoder decoder =
      read_plain_decoder(config, {.activation = "hidden_act", .usual_activation = "gelu", .eps = {}});
  config.ignore({"layer_norm_eps"});
  decoder.spec.positions = PositionTable::kLearned;
  decoder.spec.positions_unused = kPositionsUnused;
  if (config.get_bool("scale_embedding", true))
    decoder.spec.embedding_scale = static_cast<float>(std::sqrt(double(decoder.spec.hidden_size)));
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
                                   {"mixer_post_norm", "self_attn_layer_norm"},
                                   {"ffn_post_norm", "final_layer_norm"},
                                   {"mlp.up_proj", "fc1"},
                                   {"mlp.down_proj", "fc2"}};
constexpr TensorNames kOptNames{.embedding = "model.decoder.embed_tokens",
                                .positions = "model.decoder.embed_positions",
                                .project_in = "model.decoder.project_in",
                                .project_out = "model.decoder.project_out",
                                .layers = "model.decoder.layers",
                                .final_norm = "model.decoder.final_layer_norm",
                                .modules = kModules};
// Tables that old exporters saved.
constexpr std::string_view kSinusoids[] = {"embed_positions.weights"};

}  // namespace

constexpr Architecture kOpt{"OPTForCausalLM", "opt", read_opt, kOptNames, "OPT 125M to 66B, Galactica", "opt opt-350m"};
constexpr Architecture kInt8Opt{"Int8OPTForCausalLM", "opt", read_int8_opt, kOptNames, "OPT 125M to 30B by SmoothQuant", "opt-smoothquant"};
constexpr Architecture kBioGpt{"BioGptForCausalLM",
                               "biogpt",
                               read_biogpt,
                               {.embedding = "biogpt.embed_tokens",
                                .positions = "biogpt.embed_positions",
                                .layers = "biogpt.layers",
                                .final_norm = "biogpt.layer_norm",
                                .head = "output_projection",
                                .modules = kModules},
                               "BioGPT, BioGPT Large",
                               "biogpt"};
constexpr Architecture kXglm{"XGLMForCausalLM",
                             "xglm",
                             read_xglm,
                             {.final_norm = "model.layer_norm", .modules = kModules, .ignored = kSinusoids},
                             "XGLM 564M to 7.5B, Incoder",
                             "xglm"};

}  // namespace serval
