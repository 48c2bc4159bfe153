#include "engine/model/architectures/bailing.h"

#include <string>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/expert_fields.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

// All but the choice of experts.
ModelSpec read_layers(const Fields& config, bool norms_heads, const RopeRules& rope, MoeFfnSpec& experts) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size);
  attention.qkv_bias = config.get_bool("use_qkv_bias", false);
  attention.output_bias = config.get_bool("use_bias", false);
  spec.final_norm = read_rms_norm(config);
  if (!config.get_bool("use_rmsnorm", true)) config.refuse("use_rmsnorm", "must be true");
  if (config.get_bool("norm_head", false)) config.refuse("norm_head", "is not supported when true");
  if (norms_heads) attention.head_norm = spec.final_norm;
  const DenseFfnSpec dense = read_gated_ffn(config);
  set_uniform_layers(config, pre_norm_layer(attention, dense, spec.final_norm),
                     read_rope(config, attention.head_dim, spec.max_positions, rope), spec);
  experts = read_experts(config, spec, dense);
  const int each = config.find_int("moe_shared_expert_intermediate_size", 1, kMaxIntermediate)
                       .value_or(experts.intermediate_size);
  experts.shared_size = config.find_int("num_shared_experts", 0, kMaxExperts).value_or(0) * each;
  config.ignore({"embedding_dropout", "output_dropout", "norm_softmax", "multi_gate", "moe_router_topk_scaling_factor"});
  return spec;
}

ModelSpec read_bailing_moe(const Fields& config) {
  MoeFfnSpec experts;
  ModelSpec spec = read_layers(config, false, {.theta = 600000}, experts);
  experts.rule.renormalise = config.get_bool("norm_topk_prob", true);
  set_experts_behind_dense(config, experts, 0, spec);
  return spec;
}

// DeepSeek-V3's choice.
ModelSpec read_bailing_moe_v2(const Fields& config) {
  MoeFfnSpec experts;
  ModelSpec spec =
      read_layers(config, config.get_bool("use_qk_norm", true), {.theta = 600000, .part = 1}, experts);
  read_corrected_routing(config, experts);
  experts.has_correction = config.get_bool("moe_router_enable_expert_bias", true);
  if (const std::string score = config.find_string("score_function").value_or("sigmoid"); score != "sigmoid")
    config.refuse("score_function", in_quotes(score) + " is not supported; supported is sigmoid");
  set_experts_behind_dense(config, experts, 0, spec);
  return spec;
}

constexpr StoredName kModules[] = {{"self_attn.q_proj", "attention.query_key_value"},
                                   {"self_attn.k_proj", "attention.query_key_value"},
                                   {"self_attn.v_proj", "attention.query_key_value"},
                                   {"self_attn.o_proj", "attention.dense"},
                                   {"self_attn.q_norm", "attention.query_layernorm"},
                                   {"self_attn.k_norm", "attention.key_layernorm"},
                                   {"mlp.gate.e_score_correction_bias", "mlp.gate.expert_bias"}};

}  // namespace

constexpr Architecture kBailingMoe{"BailingMoeForCausalLM",
                                   "bailing_moe",
                                   read_bailing_moe,
                                   {.embedding = "model.word_embeddings", .modules = kModules},
                                   "Ling-lite, Ling-plus, Ring-lite",
                                   "bailing-moe"};
constexpr Architecture kBailingMoeV2{"BailingMoeV2ForCausalLM",
                                     "bailing_moe_v2",
                                     read_bailing_moe_v2,
                                     {.embedding = "model.word_embeddings", .modules = kModules},
                                     "Ling 2.0 mini, flash, 1T; Ring 2.0",
                                     "bailing-moe-v2"};

}  // namespace serval
