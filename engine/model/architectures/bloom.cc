#include "engine/model/architectures/bloom.h"

#include <string>
#include <utility>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/plain_decoder.h"
#include "engine/model/harmless_fields.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

// ALiBi has no last position. This is where a context ends that is given no length.
constexpr int kUsualPositions = 1 << 17;

ModelSpec read_bloom(const Fields& config) {
  PlainDecoder decoder = read_plain_decoder(
      config, {.hidden = "n_embed", .layers = "n_layer", .heads = "n_head", .positions = {}, .intermediate = {}});
  decoder.spec.max_positions = kUsualPositions;
  decoder.spec.embedding_norm = decoder.norm;
  decoder.attention.slopes = alibi_slopes(decoder.attention.num_heads);
  decoder.keeps_normed = config.get_bool("apply_residual_connection_post_layernorm", false);
  // The length it was trained with, how the reference computes, how it was trained, and what it never reads.
  config.ignore({"seq_length", "slow_but_exact", "pretraining_tp", "attention_softmax_in_fp32",
                 "bias_dropout_fusion", "masked_softmax_fusion", "offset_alibi", "skip_bias_add",
                 "skip_bias_add_qkv", "n_inner"});
  return made_of(config, std::move(decoder));
}

ModelSpec read_mpt(const Fields& config) {
  PlainDecoder decoder = read_plain_decoder(config, {.hidden = "d_model",
                                                     .layers = "n_layers",
                                                     .heads = "n_heads",
                                                     .positions = "max_seq_len",
                                                     .intermediate = {},
                                                     .activation = {},
                                                     .usual_activation = "gelu"});
  GqaSpec& attention = decoder.attention;
  attention.slopes = alibi_slopes(attention.num_heads);
  attention.qkv_bias = attention.output_bias = decoder.ffn.bias = false;
  decoder.norm.has_bias = false;
  const auto only = [](const Fields& fields, std::string_view field, bool supported) {
    if (fields.get_bool(field, supported) != supported)
      fields.refuse(field, std::string("is not supported when ") + (supported ? "false" : "true"));
  };
  only(config, "no_bias", true);
  if (config.find_int("expansion_ratio", 1, 64).value_or(4) != 4) config.refuse("expansion_ratio", "must be 4");
  if (const std::optional<Fields> fields = config.find_object("attn_config")) {
    only(*fields, "alibi", true);
    only(*fields, "qk_ln", false);
    only(*fields, "prefix_lm", false);
    if (const std::string type = fields->find_string("attn_type").value_or("multihead_attention");
        type != "multihead_attention")
      fields->refuse("attn_type", in_quotes(type) + " is not supported; supported is multihead_attention");
    attention.qkv_limit = static_cast<float>(fields->find_positive("clip_qkv", 1e6).value_or(0));
    if (const auto scale = fields->find_positive("softmax_scale", 1e6)) attention.scale = static_cast<float>(*scale);
    // How the original computes, and how steep its slopes are, for which the reference has always 8.
    fields->ignore({"alibi_bias_max", "attn_impl", "attn_pdrop", "attn_uses_sequence_id", "model_type"});
    refuse_unasked(*fields);
  }
  // Of files and training, and what the reference does not read.
  config.ignore({"emb_pdrop", "embedding_fraction", "init_config", "init_device", "learned_pos_emb", "norm_type",
                 "tokenizer_name", "verbose"});
  return made_of(config, std::move(decoder));
}

constexpr StoredName kMptModules[] = {{"input_layernorm", "norm_1"},
                                      {"self_attn.q_proj", "attn.Wqkv"},
                                      {"self_attn.k_proj", "attn.Wqkv"},
                                      {"self_attn.v_proj", "attn.Wqkv"},
                                      {"self_attn.o_proj", "attn.out_proj"},
                                      {"post_attention_layernorm", "norm_2"},
                                      {"mlp.up_proj", "ffn.up_proj"},
                                      {"mlp.down_proj", "ffn.down_proj"}};

}  // namespace

constexpr Architecture kMpt{"MptForCausalLM",
                            "mpt",
                            read_mpt,
                            {.embedding = "transformer.wte",
                             .layers = "transformer.blocks",
                             .final_norm = "transformer.norm_f",
                             .optional_prefix = "transformer.",
                             .modules = kMptModules},
                            "MPT 7B and 30B, StoryWriter",
                            "mpt-bf16",
                            "MPTForCausalLM"};
constexpr Architecture kBloom{"BloomForCausalLM",
                              "bloom",
                              read_bloom,
                              {.embedding = "transformer.word_embeddings",
                               .embedding_norm = "transformer.word_embeddings_layernorm",
                               .layers = "transformer.h",
                               .final_norm = "transformer.ln_f",
                               .optional_prefix = "transformer.",
                               .modules = kMegatronModules,
                               .fused_qkv = FusedQkv::kByKvHead},
                              "BLOOM 560M to 176B, BLOOMZ",
                              "bloom bloom-normed"};

}  // namespace serval
