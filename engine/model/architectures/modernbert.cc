#include "engine/model/architectures/modernbert.h"

#include <vector>

#include "engine/model/architectures/decoder_fields.h"

namespace serval {
namespace {

RopeOfKind rope_of(const Fields& config, std::string_view field, double usual_theta, int head_dim) {
  return {head_dim, {.theta = find_theta(config, field).value_or(usual_theta)}};
}

ModelSpec read_modernbert(const Fields& config) {
  ModelSpec spec = read_frame(config, /*ties_when_absent=*/true);
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false, .bias = false});
  attention.sees_ahead = spec.is_encoder = true;
  DenseFfnSpec ffn = read_gated_ffn(config, "hidden_activation", "gelu");
  ffn.bias = config.get_bool("mlp_bias", false);
  NormSpec norm = read_layer_norm(config, "norm_eps");
  norm.has_bias = config.get_bool("norm_bias", false);
  spec.embedding_norm = spec.final_norm = norm;
  spec.layers.assign(spec.layers.size(), pre_norm_layer(attention, ffn, norm));
  spec.layers[0].mixer_norm = {};  // the embedding's stands there

  // The reference spreads it over both rotations.
  if (config.find("rope_scaling") != nullptr) config.refuse("rope_scaling", "is not supported for this architecture");
  spec.ropes = read_ropes_by_kind(config, spec.max_positions, rope_of(config, "global_rope_theta", 160'000, attention.head_dim),
                                  rope_of(config, "local_rope_theta", 10'000, attention.head_dim));
  const int pattern = config.find_int("global_attn_every_n_layers", 1, kMaxLayers).value_or(3);
  std::vector<bool> windowed(spec.layers.size());
  for (size_t l = 0; l < windowed.size(); ++l) windowed[l] = l % pattern != 0;
  windowed = read_layer_types(config, spec.num_layers()).value_or(windowed);
  for (size_t l = 0; l < windowed.size(); ++l) spec.layers[l].rope = windowed[l] ? kWindowedRope : kFullRope;
  // Of both sides together, without the row itself.
  const int local = config.find_int("local_attention", 1, kMaxPositions).value_or(128);
  set_windows(config, local / 2 + 1, windowed, spec);
  // Of training, and of heads.
  config.ignore({"classifier_activation", "classifier_bias", "classifier_pooling", "cls_token_id", "decoder_bias", "deterministic_flash_attn", "initializer_cutoff_factor",
                 "layer_norm_eps", "mlp_dropout", "position_embedding_type", "reference_compile", "repad_logits_with_grad", "sparse_pred_ignore_index", "sparse_prediction"});
  return spec;
}

constexpr StoredName kModules[] = {{"self_attn.q_proj", "attn.Wqkv"}, {"self_attn.k_proj", "attn.Wqkv"}, {"self_attn.v_proj", "attn.Wqkv"},
                                   {"self_attn.o_proj", "attn.Wo"},   {"mlp.gate_proj", "mlp.Wi"},       {"mlp.up_proj", "mlp.Wi"},
                                   {"mlp.down_proj", "mlp.Wo"},       {"input_layernorm", "attn_norm"},  {"post_attention_layernorm", "mlp_norm"}};
constexpr std::string_view kIgnored[] = {"head.", "decoder.", "classifier."};

}  // namespace

constexpr Architecture kModernBert{.name = "ModernBertModel",
                                   .model_type = "modernbert",
                                   .read = read_modernbert,
                                   .names = {.embedding = "model.embeddings.tok_embeddings",
                                             .embedding_norm = "model.embeddings.norm",
                                             .layers = "model.layers",
                                             .final_norm = "model.final_norm",
                                             .modules = kModules,
                                             .ignored = kIgnored},
                                   .models = "ModernBERT: GTE, Nomic and Granite embeddings, rerankers",
                                   .goldens = "modernbert modernbert-biases",
                                   .is_encoder = true};

}  // namespace serval
