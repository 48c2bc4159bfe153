#include "engine/model/architectures/dbrx.h"

#include <cmath>
#include <string>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/expert_fields.h"
#include "engine/model/architectures/plain_decoder.h"
#include "engine/model/harmless_fields.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

ModelSpec read_dbrx(const Fields& config) {
  ModelSpec spec;
  spec.vocab_size = config.get_int("vocab_size", 1, kMaxVocab);
  spec.hidden_size = get_either(config, "d_model", "hidden_size", kMaxHidden);
  spec.layers.resize(get_either(config, "n_layers", "num_hidden_layers", kMaxLayers));
  spec.max_positions = get_either(config, "max_seq_len", "max_position_embeddings", kMaxPositions);
  spec.final_norm = {.kind = NormSpec::Kind::kLayer, .eps = 1e-5f, .has_bias = false};

  const Fields heads = config.get_object("attn_config");
  GqaSpec attention;
  attention.num_heads = get_either(config, "n_heads", "num_attention_heads", kMaxHeads);
  attention.num_kv_heads = heads.find_int("kv_n_heads", 1, kMaxHeads).value_or(1);
  attention.head_dim = spec.hidden_size / attention.num_heads;
  if (attention.num_heads % attention.num_kv_heads != 0 || spec.hidden_size % attention.num_heads != 0 ||
      attention.head_dim % 8 != 0 || attention.head_dim > kMaxHeadDim)
    config.refuse("n_heads", "must be a multiple of kv_n_heads and divide d_model into heads of a multiple of 8");
  attention.scale = 1 / std::sqrt(static_cast<float>(attention.head_dim));
  attention.qkv_limit = static_cast<float>(heads.find_positive("clip_qkv", 1e6).value_or(0));
  config.find_int("num_key_value_heads", 1, kMaxHeads);  // written again when it is saved
  RopeRules rules{.theta = find_theta(heads, "rope_theta").value_or(10000)};
  const RopeSpec rope = read_rope(config, attention.head_dim, spec.max_positions, rules);
  heads.ignore({"attn_pdrop", "model_type"});
  refuse_unasked(heads);

  const Fields inner = config.get_object("ffn_config");
  MoeFfnSpec experts = read_experts(
      inner, spec, {}, {.count = {"moe_num_experts"}, .per_row = "moe_top_k", .width = "ffn_hidden_size"});
  const std::optional<double> norm = inner.find_number("moe_normalize_expert_weights", 0, 16);
  if (norm.value_or(1) != 1) inner.refuse("moe_normalize_expert_weights", "must be 1 or null");
  const boost::json::value* const said = inner.object().if_contains("moe_normalize_expert_weights");
  experts.rule.renormalise = said == nullptr || !said->is_null();
  if (const std::optional<Fields> act = inner.find_object("ffn_act_fn"))
    experts.activation = read_activation(*act, "name", "silu");
  inner.ignore({"hidden_size", "moe_jitter_eps", "moe_loss_weight", "uniform_expert_assignment", "model_type"});
  refuse_unasked(inner);
  config.ignore({"emb_pdrop"});
  set_uniform_layers(config, pre_norm_layer(attention, experts, spec.final_norm), rope, spec);
  return spec;
}

constexpr StoredName kModules[] = {{"input_layernorm", "norm_attn_norm.norm_1"},
                                   {"post_attention_layernorm", "norm_attn_norm.norm_2"},
                                   {"self_attn.q_proj", "norm_attn_norm.attn.Wqkv"},
                                   {"self_attn.k_proj", "norm_attn_norm.attn.Wqkv"},
                                   {"self_attn.v_proj", "norm_attn_norm.attn.Wqkv"},
                                   {"self_attn.o_proj", "norm_attn_norm.attn.out_proj"},
                                   {"mlp.gate", "ffn.router.layer"},
                                   {"mlp.experts.*.gate_proj", "ffn.experts.mlp.w1"},
                                   {"mlp.experts.*.up_proj", "ffn.experts.mlp.v1"},
                                   {"mlp.experts.*.down_proj", "ffn.experts.mlp.w2"}};

}  // namespace

constexpr Architecture kDbrx{"DbrxForCausalLM",
                             "dbrx",
                             read_dbrx,
                             {.embedding = "transformer.wte",
                              .layers = "transformer.blocks",
                              .final_norm = "transformer.norm_f",
                              .modules = kModules,
                              .has_flat_stacks = true},
                             "DBRX",
                             "dbrx"};

}  // namespace serval
