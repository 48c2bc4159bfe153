#include "engine/model/architectures/bert.h"

#include <string>
#include <utility>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/plain_decoder.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

constexpr int kMaxTokenTypes = 16;
constexpr float kUsualEps = 1e-12f;

ModelSpec read_encoder(const Fields& config, int positions_unused) {
  PlainDecoder decoder = read_plain_decoder(config, {.activation = "hidden_act", .usual_activation = "gelu", .eps = "layer_norm_eps"});
  ModelSpec& spec = decoder.spec;
  if (config.find("layer_norm_eps") == nullptr) decoder.norm.eps = kUsualEps;
  if (config.get_bool("is_decoder", false)) config.refuse("is_decoder", "is not supported when true");
  if (const std::string kind = config.find_string("position_embedding_type").value_or("absolute"); kind != "absolute")
    config.refuse("position_embedding_type", in_quotes(kind) + " is not supported; supported is absolute");
  // Of training, and of a layer behind the last that nobody has.
  config.ignore({"directionality", "output_past", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
                 "pooler_size_per_head", "pooler_type"});
  spec.is_encoder = decoder.attention.sees_ahead = true;
  spec.num_token_types = config.find_int("type_vocab_size", 1, kMaxTokenTypes).value_or(2);
  spec.embedding_norm = decoder.norm;
  spec.positions = PositionTable::kLearned;
  spec.positions_unused = positions_unused;
  if (spec.max_positions <= positions_unused) config.refuse("max_position_embeddings", "must be more than " + std::to_string(positions_unused));
  spec.max_positions -= positions_unused;
  decoder.norms_residual = true;
  return made_of(config, std::move(decoder));
}

ModelSpec read_bert(const Fields& config) {
  return read_encoder(config, 0);
}

ModelSpec read_roberta(const Fields& config) {
  return read_encoder(config, config.find_int("pad_token_id", 0, kMaxVocab).value_or(1) + 1);
}

constexpr StoredName kModules[] = {{"self_attn.q_proj", "attention.self.query"},
                                   {"self_attn.k_proj", "attention.self.key"},
                                   {"self_attn.v_proj", "attention.self.value"},
                                   {"self_attn.o_proj", "attention.output.dense"},
                                   {"mixer_post_norm", "attention.output.LayerNorm"},
                                   {"mlp.up_proj", "intermediate.dense"},
                                   {"mlp.down_proj", "output.dense"},
                                   {"ffn_post_norm", "output.LayerNorm"}};
// Heads, which are read where they are computed or not at all, and the numbers 0, 1, 2, ...
constexpr std::string_view kIgnored[] = {"pooler.", "classifier.", "cls.", "lm_head.", "embeddings.position_ids", "embeddings.token_type_ids"};
constexpr TensorNames kBertNames = {.embedding = "bert.embeddings.word_embeddings",
                                    .positions = "bert.embeddings.position_embeddings",
                                    .token_types = "bert.embeddings.token_type_embeddings",
                                    .embedding_norm = "bert.embeddings.LayerNorm",
                                    .layers = "bert.encoder.layer",
                                    .optional_prefix = "bert.",
                                    .modules = kModules,
                                    .ignored = kIgnored};
constexpr TensorNames kRobertaNames = {.embedding = "roberta.embeddings.word_embeddings",
                                       .positions = "roberta.embeddings.position_embeddings",
                                       .token_types = "roberta.embeddings.token_type_embeddings",
                                       .embedding_norm = "roberta.embeddings.LayerNorm",
                                       .layers = "roberta.encoder.layer",
                                       .optional_prefix = "roberta.",
                                       .modules = kModules,
                                       .ignored = kIgnored};

}  // namespace

constexpr Architecture kBert{.name = "BertModel",
                             .model_type = "bert",
                             .read = read_bert,
                             .names = kBertNames,
                             .models = "BERT: BGE, E5, GTE, all-MiniLM, MS MARCO cross-encoders",
                             .goldens = "bert",
                             .is_encoder = true};
constexpr Architecture kRoberta{.name = "RobertaModel",
                                .model_type = "roberta",
                                .read = read_roberta,
                                .names = kRobertaNames,
                                .models = "RoBERTa: all-distilroberta, all-roberta-large",
                                .goldens = "roberta",
                                .is_encoder = true};
constexpr Architecture kXlmRoberta{.name = "XLMRobertaModel",
                                   .model_type = "xlm-roberta",
                                   .read = read_roberta,
                                   .names = kRobertaNames,
                                   .models = "XLM-R: BGE M3 and its rerankers, multilingual E5",
                                   .goldens = "xlm-roberta",
                                   .is_encoder = true};

}  // namespace serval
