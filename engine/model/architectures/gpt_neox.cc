#include "engine/model/architectures/gpt_neox.h"

#include <utility>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/plain_decoder.h"

namespace serval {
namespace {

ModelSpec read_gpt_neox(const Fields& config) {
  PlainDecoder decoder = read_plain_decoder(config, {.activation = "hidden_act",
                                                     .usual_activation = "gelu",
                                                     .eps = "layer_norm_eps",
                                                     .ties_when_absent = false});
  decoder.is_parallel = config.get_bool("use_parallel_residual", true);
  decoder.attention.qkv_bias = decoder.attention.output_bias = config.get_bool("attention_bias", true);
  const RopeRules rules{.theta = find_theta(config, "rotary_emb_base").value_or(10000),
                        .part = config.find_number("rotary_pct", 0.01, 1).value_or(0.25)};
  decoder.spec.ropes = {read_rope(config, decoder.attention.head_dim, decoder.spec.max_positions, rules)};
  return made_of(config, std::move(decoder));
}

constexpr StoredName kModules[] = {{"self_attn.q_proj", "attention.query_key_value"},
                                   {"self_attn.k_proj", "attention.query_key_value"},
                                   {"self_attn.v_proj", "attention.query_key_value"},
                                   {"self_attn.o_proj", "attention.dense"},
                                   {"mlp.up_proj", "mlp.dense_h_to_4h"},
                                   {"mlp.down_proj", "mlp.dense_4h_to_h"}};
// The masks, which old exporters saved.
constexpr std::string_view kMasks[] = {".attention.bias", ".attention.masked_bias"};

}  // namespace

constexpr Architecture kGptNeox{"GPTNeoXForCausalLM",
                                "gpt_neox",
                                read_gpt_neox,
                                {.embedding = "gpt_neox.embed_in",
                                 .layers = "gpt_neox.layers",
                                 .final_norm = "gpt_neox.final_layer_norm",
                                 .head = "embed_out",
                                 .modules = kModules,
                                 .fused_qkv = FusedQkv::kByKvHead,
                                 .ignored = kMasks},
                                "Pythia 14M to 12B, GPT-NeoX 20B, Dolly 2, RedPajama-INCITE, StableLM-alpha",
                                "gpt-neox gpt-neox-in-turn"};

}  // namespace serval
