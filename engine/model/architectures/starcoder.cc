#include "engine/model/architectures/starcoder.h"

#include <utility>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/plain_decoder.h"

namespace serval {
namespace {

ModelSpec read_bigcode(const Fields& config) {
  PlainDecoder decoder = read_plain_decoder(config, {.hidden = "n_embd",
                                                     .layers = "n_layer",
                                                     .heads = "n_head",
                                                     .positions = "n_positions",
                                                     .intermediate = "n_inner",
                                                     .usual_activation = "gelu_pytorch_tanh"});
  decoder.spec.positions = PositionTable::kLearned;
  if (config.get_bool("multi_query", true)) decoder.attention.num_kv_heads = 1;
  config.find_int("num_key_value_heads", 1, kMaxHeads);  // follows from multi_query
  if (!config.get_bool("scale_attn_weights", true)) decoder.attention.scale = 1;
  // The same numbers: scores are f32 here.
  config.ignore({"attention_softmax_in_fp32", "scale_attention_softmax_in_fp32", "inference_runner",
                 "max_batch_size", "max_sequence_length", "pad_key_length", "pre_allocate_kv_cache",
                 "validate_runner_input", "runner_max_sequence_length"});
  return made_of(config, std::move(decoder));
}

ModelSpec read_starcoder2(const Fields& config) {
  constexpr bool kTiesWhenAbsent = true;
  ModelSpec spec = read_frame(config, kTiesWhenAbsent);
  GqaSpec attention = read_heads(config, spec.hidden_size);
  MlpFfnSpec ffn{.intermediate_size = config.get_int("intermediate_size", 1, kMaxIntermediate),
                 .activation = read_activation(config, "hidden_act", "gelu_pytorch_tanh")};
  attention.qkv_bias = attention.output_bias = ffn.bias = config.get_bool("use_bias", true);
  spec.final_norm = read_layer_norm(config, "norm_epsilon");
  // What published files repeat or the reference does not read.
  config.ignore({"norm_type", "mlp_type", "activation_function", "layer_norm_epsilon",
                 "scale_attention_softmax_in_fp32", "scale_attn_weights"});
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions)};
  spec.layers.assign(spec.layers.size(), pre_norm_layer(attention, ffn, spec.final_norm));
  const std::optional<int> window = read_window(config);
  set_windows(config, window, std::vector<bool>(spec.layers.size(), window.has_value()), spec);
  return spec;
}

constexpr StoredName kBigCodeModules[] = {
    {"input_layernorm", "ln_1"},         {"self_attn.q_proj", "attn.c_attn"},
    {"self_attn.k_proj", "attn.c_attn"}, {"self_attn.v_proj", "attn.c_attn"},
    {"self_attn.o_proj", "attn.c_proj"}, {"post_attention_layernorm", "ln_2"},
    {"mlp.up_proj", "mlp.c_fc"},         {"mlp.down_proj", "mlp.c_proj"}};
constexpr std::string_view kMasks[] = {".attn.bias", ".attn.masked_bias"};
constexpr StoredName kStarcoder2Modules[] = {{"mlp.up_proj", "mlp.c_fc"}, {"mlp.down_proj", "mlp.c_proj"}};

}  // namespace

constexpr Architecture kGptBigCode{"GPTBigCodeForCausalLM",
                                   "gpt_bigcode",
                                   read_bigcode,
                                   {.embedding = "transformer.wte",
                                    .positions = "transformer.wpe",
                                    .layers = "transformer.h",
                                    .final_norm = "transformer.ln_f",
                                    .optional_prefix = "transformer.",
                                    .modules = kBigCodeModules,
                                    .fused_qkv = FusedQkv::kByKvHead,
                                    .ignored = kMasks},
                                   "StarCoder, StarCoderBase 1B to 15B, Granite Code 20B",
                                   "gpt-bigcode"};
constexpr Architecture kStarcoder2{"Starcoder2ForCausalLM",
                                   "starcoder2",
                                   read_starcoder2,
                                   {.modules = kStarcoder2Modules},
                                   "StarCoder2 3B, 7B, 15B",
                                   "starcoder2-bf16"};

}  // namespace serval
