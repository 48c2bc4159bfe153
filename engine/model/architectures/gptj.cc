#include "engine/model/architectures/gptj.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/plain_decoder.h"

namespace serval {
namespace {

ModelSpec read_gptj(const Fields& config) {
  PlainDecoder decoder = read_plain_decoder(config, {.hidden = "n_embd",
                                                     .layers = "n_layer",
                                                     .heads = "n_head",
                                                     .positions = "n_positions",
                                                     .intermediate = "n_inner",
                                                     .ties_when_absent = false});
  config.find_int("n_ctx", 1, kMaxPositions);  // the context, said twice
  config.ignore({"rotary", "scale_attn_weights"});
  GqaSpec& attention = decoder.attention;
  attention.qkv_bias = attention.output_bias = false;
  // To the reference its absence means 64, and null all of a head.
  const int rotary = config.find_int("rotary_dim", 2, kMaxHeadDim).value_or(std::min(64, attention.head_dim));
  if (rotary % 2 != 0 || rotary > attention.head_dim)
    config.refuse("rotary_dim", "must be even and no more than a head has: " + std::to_string(attention.head_dim));
  attention.interleaved_dims = rotary;
  decoder.spec.ropes = {RopeSpec{.rotary_dim = rotary}};
  decoder.is_parallel = true;
  decoder.has_ffn_norm = false;
  decoder.spec.head_bias = true;
  return made_of(config, std::move(decoder));
}

ModelSpec read_codegen(const Fields& config) {
  ModelSpec spec = read_gptj(config);
  if (get_either(config, "n_head", "num_attention_heads", kMaxHeads) % 4 != 0)
    config.refuse("n_head", "must be a multiple of 4");
  return spec;
}

constexpr StoredName kGptjModules[] = {{"input_layernorm", "ln_1"},         {"self_attn.q_proj", "attn.q_proj"},
                                       {"self_attn.k_proj", "attn.k_proj"}, {"self_attn.v_proj", "attn.v_proj"},
                                       {"self_attn.o_proj", "attn.out_proj"}, {"mlp.up_proj", "mlp.fc_in"},
                                       {"mlp.down_proj", "mlp.fc_out"}};
constexpr StoredName kCodeGenModules[] = {{"input_layernorm", "ln_1"},           {"self_attn.q_proj", "attn.qkv_proj"},
                                          {"self_attn.k_proj", "attn.qkv_proj"}, {"self_attn.v_proj", "attn.qkv_proj"},
                                          {"self_attn.o_proj", "attn.out_proj"}, {"mlp.up_proj", "mlp.fc_in"},
                                          {"mlp.down_proj", "mlp.fc_out"}};
// The masks, which old exporters saved.
constexpr std::string_view kMasks[] = {".attn.bias", ".attn.masked_bias", ".attn.causal_mask"};

}  // namespace

constexpr Architecture kGptj{"GPTJForCausalLM",
                             "gptj",
                             read_gptj,
                             {.embedding = "transformer.wte",
                              .layers = "transformer.h",
                              .final_norm = "transformer.ln_f",
                              .modules = kGptjModules,
                              .ignored = kMasks},
                             "GPT-J 6B, GPT4All-J, Pygmalion 6B",
                             "gptj"};
constexpr Architecture kCodeGen{"CodeGenForCausalLM",
                                "codegen",
                                read_codegen,
                                {.embedding = "transformer.wte",
                                 .layers = "transformer.h",
                                 .final_norm = "transformer.ln_f",
                                 .modules = kCodeGenModules,
                                 .fused_qkv = FusedQkv::kFourSlices,
                                 .ignored = kMasks},
                                "CodeGen 350M to 16B",
                                "codegen"};

}  // namespace serval
