#include "engine/model/architectures/bert.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <utility>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/plain_decoder.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

constexpr int kMaxTokenTypes = 16;
constexpr float kUsualEps = 1e-12f;

ModelSpec read_encoder(const Fields& config, const PlainFields& fields, int usual_token_types, int positions_unused) {
  PlainDecoder decoder = read_plain_decoder(config, fields);
  ModelSpec& spec = decoder.spec;
  if (config.find(fields.eps) == nullptr) decoder.norm.eps = kUsualEps;
  if (config.get_bool("is_decoder", false)) config.refuse("is_decoder", "is not supported when true");
  if (const std::string kind = config.find_string("position_embedding_type").value_or("absolute"); kind != "absolute")
    config.refuse("position_embedding_type", in_quotes(kind) + " is not supported; supported is absolute");
  // Of training, and of a layer behind the last that nobody has.
  config.ignore({"directionality", "output_past", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
                 "pooler_size_per_head", "pooler_type"});
  spec.is_encoder = decoder.attention.sees_ahead = true;
  spec.num_token_types = config.find_int("type_vocab_size", 1, kMaxTokenTypes).value_or(usual_token_types);
  spec.embedding_norm = decoder.norm;
  spec.positions = PositionTable::kLearned;
  spec.positions_unused = positions_unused;
  if (spec.max_positions <= positions_unused) config.refuse("max_position_embeddings", "must be more than " + std::to_string(positions_unused));
  spec.max_positions -= positions_unused;
  decoder.norms_residual = true;
  return made_of(config, std::move(decoder));
}

constexpr PlainFields kBertFields = {.activation = "hidden_act", .usual_activation = "gelu", .eps = "layer_norm_eps"};

ModelSpec read_bert(const Fields& config) {
  return read_encoder(config, kBertFields, 2, 0);
}

ModelSpec read_roberta(const Fields& config) {
  return read_encoder(config, kBertFields, 2, config.find_int("pad_token_id", 0, kMaxVocab).value_or(1) + 1);
}

ModelSpec read_distilbert(const Fields& config) {
  // The table of positions is in the checkpoint, whatever it began as.
  config.ignore({"qa_dropout", "seq_classif_dropout", "sinusoidal_pos_embds", "tie_weights_"});
  return read_encoder(config,
                      {.hidden = "dim", .layers = "n_layers", .heads = "n_heads", .intermediate = "hidden_dim", .activation = "activation", .usual_activation = "gelu",
                       .eps = "layer_norm_eps"},
                      0, 0);
}

constexpr StoredName kBertModules[] = {{"self_attn.q_proj", "attention.self.query"},
                                       {"self_attn.k_proj", "attention.self.key"},
                                       {"self_attn.v_proj", "attention.self.value"},
                                       {"self_attn.o_proj", "attention.output.dense"},
                                       {"mixer_post_norm", "attention.output.LayerNorm"},
                                       {"mlp.up_proj", "intermediate.dense"},
                                       {"mlp.down_proj", "output.dense"},
                                       {"ffn_post_norm", "output.LayerNorm"}};
constexpr StoredName kDistilBertModules[] = {{"self_attn.q_proj", "attention.q_lin"},
                                             {"self_attn.k_proj", "attention.k_lin"},
                                             {"self_attn.v_proj", "attention.v_lin"},
                                             {"self_attn.o_proj", "attention.out_lin"},
                                             {"mixer_post_norm", "sa_layer_norm"},
                                             {"mlp.up_proj", "ffn.lin1"},
                                             {"mlp.down_proj", "ffn.lin2"},
                                             {"ffn_post_norm", "output_layer_norm"}};
// Heads, which are read where they are computed or not at all, and the numbers 0, 1, 2, ...
constexpr std::string_view kIgnored[] = {"pooler.", "classifier.", "cls.", "lm_head.", "vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "qa_outputs.",
                                         "embeddings.position_ids", "embeddings.token_type_ids"};

// A name as an argument of a template, and two in one piece.
template <size_t kBytes>
struct Name {
  char text[kBytes] = {};
  constexpr Name(const char (&of)[kBytes]) { std::copy_n(of, kBytes, text); }
};
template <Name first, Name second>
struct Joined {
  static constexpr auto kText = [] {
    std::array<char, sizeof first.text + sizeof second.text - 2> text{};
    std::copy_n(second.text, sizeof second.text - 1, std::copy_n(first.text, sizeof first.text - 1, text.begin()));
    return text;
  }();
  static constexpr std::string_view kName{kText.data(), kText.size()};
};

// The families' names are alike but for what begins them and what a layer is called.
template <Name prefix, Name layers>
constexpr TensorNames names_behind(std::span<const StoredName> modules) {
  return {.embedding = Joined<prefix, "embeddings.word_embeddings">::kName,
          .positions = Joined<prefix, "embeddings.position_embeddings">::kName,
          .token_types = Joined<prefix, "embeddings.token_type_embeddings">::kName,
          .embedding_norm = Joined<prefix, "embeddings.LayerNorm">::kName,
          .layers = Joined<prefix, layers>::kName,
          .optional_prefix = Joined<prefix, "">::kName,
          .modules = modules,
          .ignored = kIgnored};
}

}  // namespace

constexpr Architecture kBert{.name = "BertModel",
                             .model_type = "bert",
                             .read = read_bert,
                             .names = names_behind<"bert.", "encoder.layer">(kBertModules),
                             .models = "BERT: BGE, E5, GTE, all-MiniLM, MS MARCO cross-encoders",
                             .goldens = "bert",
                             .is_encoder = true};
constexpr Architecture kDistilBert{.name = "DistilBertModel",
                                   .model_type = "distilbert",
                                   .read = read_distilbert,
                                   .names = names_behind<"distilbert.", "transformer.layer">(kDistilBertModules),
                                   .models = "DistilBERT: MS MARCO's retrievers, SST-2's sentiments",
                                   .goldens = "distilbert",
                                   .is_encoder = true};
constexpr Architecture kRoberta{.name = "RobertaModel",
                                .model_type = "roberta",
                                .read = read_roberta,
                                .names = names_behind<"roberta.", "encoder.layer">(kBertModules),
                                .models = "RoBERTa: all-distilroberta, all-roberta-large",
                                .goldens = "roberta",
                                .is_encoder = true};
constexpr Architecture kXlmRoberta{.name = "XLMRobertaModel",
                                   .model_type = "xlm-roberta",
                                   .read = read_roberta,
                                   .names = names_behind<"roberta.", "encoder.layer">(kBertModules),
                                   .models = "XLM-R: BGE M3 and its rerankers, multilingual E5",
                                   .goldens = "xlm-roberta",
                                   .is_encoder = true};

}  // namespace serval
