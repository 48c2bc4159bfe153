#include "engine/model/architectures/falcon.h"

#include <string>
#include <utility>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/plain_decoder.h"

namespace serval {
namespace {

constexpr StoredName kTwoNorms[] = {{"self_attn.q_proj", "self_attention.query_key_value"},
                                    {"self_attn.k_proj", "self_attention.query_key_value"},
                                    {"self_attn.v_proj", "self_attention.query_key_value"},
                                    {"self_attn.o_proj", "self_attention.dense"},
                                    {"input_layernorm", "ln_attn"},
                                    {"post_attention_layernorm", "ln_mlp"},
                                    {"mlp.up_proj", "mlp.dense_h_to_4h"},
                                    {"mlp.down_proj", "mlp.dense_4h_to_h"}};

// The new decoder's heads share keys and values in groups; of the older ones, multi_query has one head of them.
int read_kv_heads(const Fields& config, int num_heads, bool is_new) {
  const bool is_single = config.get_bool("multi_query", true);
  const int kv_heads = config.find_int("n_head_kv", 1, kMaxHeads)
                           .value_or(config.find_int("num_kv_heads", 1, kMaxHeads).value_or(num_heads));
  if (!is_new) return is_single ? 1 : num_heads;
  if (num_heads % kv_heads != 0) config.refuse("num_kv_heads", "must divide num_attention_heads");
  return kv_heads;
}

ModelSpec read_falcon(const Fields& config) {
  constexpr int kPositionsWhenAbsent = 2048;
  PlainDecoder decoder = read_plain_decoder(config, {.hidden = "n_embed",
                                                     .layers = "n_layer",
                                                     .heads = "n_head",
                                                     .positions = {},
                                                     .intermediate = "ffn_hidden_size",
                                                     .activation = "activation",
                                                     .usual_activation = "gelu"});
  ModelSpec& spec = decoder.spec;
  GqaSpec& attention = decoder.attention;
  spec.max_positions =
      config.find_int("max_position_embeddings", 1, kMaxPositions).value_or(kPositionsWhenAbsent);
  const bool is_new = config.get_bool("new_decoder_architecture", false);
  attention.num_kv_heads = read_kv_heads(config, attention.num_heads, is_new);
  attention.qkv_bias = attention.output_bias = decoder.ffn.bias = config.get_bool("bias", false);

  decoder.is_parallel = config.get_bool("parallel_attn", true) || is_new;
  const std::optional<int> norms = config.find_int("num_ln_in_parallel_attn", 1, 2);
  if (is_new && !config.get_bool("parallel_attn", true))
    config.refuse("parallel_attn", "must be true with new_decoder_architecture");
  if (!is_new && norms.value_or(1) != 1)
    config.refuse("num_ln_in_parallel_attn", "must be 1 without new_decoder_architecture");
  decoder.has_ffn_norm = !decoder.is_parallel || (is_new && norms.value_or(2) == 2);
  if (decoder.is_parallel && decoder.has_ffn_norm) spec.names.modules = kTwoNorms;
  if (config.get_bool("apply_residual_connection_post_layernorm", false))
    config.refuse("apply_residual_connection_post_layernorm", "is not supported when true");

  if (config.get_bool("alibi", false)) {
    // Added before scores are scaled. The reference rounds each product of a slope and a position to bfloat16.
    attention.slopes = alibi_slopes(attention.num_heads);
    for (float& slope : attention.slopes) slope *= attention.scale;
    config.ignore({"rope_theta", "rope_scaling", "rope_parameters"});
  } else {
    spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions)};
  }
  config.ignore({"ff_factor"});  // ffn_hidden_size over hidden_size
  return made_of(config, std::move(decoder));
}

}  // namespace

constexpr Architecture kFalcon{"FalconForCausalLM",
                               "falcon",
                               read_falcon,
                               {.embedding = "transformer.word_embeddings",
                                .layers = "transformer.h",
                                .final_norm = "transformer.ln_f",
                                .modules = kMegatronModules,
                                .fused_qkv = FusedQkv::kByKvHead},
                               "Falcon 7B, 40B, 180B, Falcon 2 11B, Falcon-RW 1B and 7B",
                               "falcon-bf16 falcon-new-bf16 falcon-rw-bf16"};

}  // namespace serval
