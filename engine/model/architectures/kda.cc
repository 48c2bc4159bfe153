#include "engine/model/architectures/kda.h"

#include <optional>
#include <string_view>
#include <vector>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/expert_fields.h"
#include "engine/model/architectures/mla_fields.h"
#include "engine/model/harmless_fields.h"

namespace serval {
namespace {

// A layer is an attention or a delta attention.
enum Kind { kAttention, kDelta };
constexpr std::string_view kKinds[] = {"full_attention", "linear_attention"};

// read_frame, with the context under either name.
ModelSpec read_kimi_frame(const Fields& config) {
  ModelSpec spec;
  spec.vocab_size = config.get_int("vocab_size", 1, kMaxVocab);
  spec.hidden_size = config.get_int("hidden_size", 1, kMaxHidden);
  spec.layers.resize(config.get_int("num_hidden_layers", 1, kMaxLayers));
  const std::optional<int> context = config.find_int("model_max_length", 1, kMaxPositions);
  spec.max_positions = context ? *context : config.get_int("max_position_embeddings", 1, kMaxPositions);
  spec.tied_embeddings = config.get_bool("tie_word_embeddings", false);
  spec.final_norm = read_rms_norm(config, 1e-5);
  return spec;
}

struct HybridRules {
  KdaSpec delta;
  std::vector<int> kinds;
  int dense_when_absent;
};

// Layers of these kinds, and DeepSeek-V3's experts under Kimi's names.
void set_hybrid(const Fields& config, const MlaSpec& mla, const HybridRules& rules, ModelSpec& spec) {
  const DenseFfnSpec dense = read_gated_ffn(config);
  MoeFfnSpec experts =
      read_experts(config, spec, dense, {.count = {"num_experts"}, .per_row = "num_experts_per_token"});
  experts.shared_size = config.find_int("num_shared_experts", 0, kMaxExperts).value_or(1) * experts.intermediate_size;
  read_expert_groups(config, experts, "num_expert_group");
  experts.has_correction = true;
  experts.rule = {.score = RoutingRule::Score::kSigmoid,
                  .num_groups = experts.rule.num_groups,
                  .groups_chosen = experts.rule.groups_chosen,
                  .by_best_two = true,
                  .renormalise = config.get_bool("moe_renormalize", true),
                  .least_sum = 1e-20f,
                  .scale = static_cast<float>(config.find_positive("routed_scaling_factor", 1e6).value_or(1))};
  for (int l = 0; l < spec.num_layers(); ++l) {
    LayerSpec& layer = spec.layers[l] = pre_norm_layer({}, dense, spec.final_norm);
    if (rules.kinds[l] == kDelta) {
      layer.mixer = rules.delta;
    } else {
      layer.mixer = mla;
    }
  }
  if (const std::optional<std::vector<bool>> sparse = read_mlp_layer_types(config, spec.num_layers())) {
    set_experts(experts, *sparse, spec);
    config.ignore({"first_k_dense_replace"});
    read_draft_layers(config, spec);
  } else {
    set_experts_behind_dense(config, experts, rules.dense_when_absent, spec);
  }
  set_state_groups(std::vector<bool>(rules.kinds.begin(), rules.kinds.end()), spec);
  // How the choice is made is the reference's, whatever these say.
  config.ignore({"moe_router_activation_func", "use_grouped_topk", "moe_layer_freq"});
}

// linear_attn_config names the layers, counted from 1; or layer_types; or else all but every fourth from the fifth on
// are delta attentions.
std::vector<int> read_kimi_kinds(const Fields& config, const std::optional<Fields>& inner, int num_layers) {
  std::vector<int> kinds;
  for (int l = 0; l < num_layers; ++l) kinds.push_back(l > 0 && l % 4 == 0 ? kAttention : kDelta);
  if (inner && inner->find("full_attn_layers") != nullptr) {
    kinds.assign(num_layers, kDelta);
    for (const int64_t l : inner->find_integers("full_attn_layers")) {
      if (l < 1 || l > num_layers) inner->refuse("full_attn_layers", "must hold numbers of layers, from 1 on");
      kinds[l - 1] = kAttention;
    }
    inner->ignore({"kda_layers"});
  }
  return read_layer_names(config, "layer_types", num_layers, kKinds).value_or(kinds);
}

ModelSpec read_kimi_linear(const Fields& config) {
  ModelSpec spec = read_kimi_frame(config);
  const MlaSpec mla = read_mla(config);
  KdaSpec delta;
  delta.num_heads = config.find_int("linear_num_heads", 1, kMaxHeads).value_or(32);
  delta.head_dim = config.find_int("linear_head_dim", 1, kMaxScanKeys).value_or(128);
  delta.taps = config.find_int("linear_conv_kernel_dim", 2, kMaxConvTaps).value_or(delta.taps);
  const std::optional<Fields> inner = config.find_object("linear_attn_config");
  const std::vector<int> kinds = read_kimi_kinds(config, inner, spec.num_layers());
  if (inner) {
    delta.num_heads = inner->find_int("num_heads", 1, kMaxHeads).value_or(delta.num_heads);
    delta.head_dim = inner->find_int("head_dim", 1, kMaxScanKeys).value_or(delta.head_dim);
    delta.taps = inner->find_int("short_conv_kernel_size", 2, kMaxConvTaps).value_or(delta.taps);
    refuse_unasked(*inner);
  }
  delta.step_rank = delta.gate_rank = delta.head_dim;
  delta.norm = spec.final_norm;
  if (!config.get_bool("mla_use_nope", true)) config.refuse("mla_use_nope", "must be true");
  config.ignore({"rope_theta", "rope_scaling", "rope_parameters"});  // nothing rotates
  set_hybrid(config, mla, {delta, kinds, 1}, spec);
  return spec;
}

ModelSpec read_bailing_hybrid(const Fields& config) {
  ModelSpec spec = read_kimi_frame(config);
  spec.final_norm = read_rms_norm(config, 1e-6);
  MlaSpec mla = read_mla(config);
  mla.has_head_gate = true;
  KdaSpec delta;
  delta.num_heads = config.find_int("linear_num_heads", 1, kMaxHeads).value_or(mla.num_heads);
  delta.head_dim = config.find_int("linear_head_dim", 1, kMaxScanKeys)
                       .value_or(config.find_int("head_dim", 1, kMaxScanKeys).value_or(128));
  delta.taps = config.find_int("short_conv_kernel_size", 2, kMaxConvTaps).value_or(delta.taps);
  config.find_int("linear_conv_kernel_dim", 2, kMaxConvTaps);  // said again when it is saved
  delta.has_flat_rates = true;
  const double bound = config.find_number("kda_lower_bound", -1e6, 0).value_or(-5);
  if (config.get_bool("kda_safe_gate", true)) delta.lower_bound = static_cast<float>(bound);
  delta.norm = spec.final_norm;
  const int group = config.find_int("layer_group_size", 1, kMaxLayers).value_or(6);
  std::vector<int> kinds;
  for (int l = 0; l < spec.num_layers(); ++l) kinds.push_back((l + 1) % group == 0 ? kAttention : kDelta);
  kinds = read_layer_names(config, "layer_types", spec.num_layers(), kKinds).value_or(kinds);
  spec.ropes = {read_rope(config, mla.rotary_dim, spec.max_positions, {.theta = 6e6})};
  config.ignore({"mtp_loss_scaling_factor"});
  set_hybrid(config, mla, {delta, kinds, 2}, spec);
  return spec;
}

constexpr StoredName kKimiModules[] = {{"mlp.gate", "block_sparse_moe.gate"},
                                       {"mlp.gate.e_score_correction_bias",
                                        "block_sparse_moe.gate.e_score_correction_bias"},
                                       {"mlp.experts.*.gate_proj", "block_sparse_moe.experts.*.w1"},
                                       {"mlp.experts.*.up_proj", "block_sparse_moe.experts.*.w3"},
                                       {"mlp.experts.*.down_proj", "block_sparse_moe.experts.*.w2"},
                                       {"mlp.shared_experts.", "block_sparse_moe.shared_experts."}};
constexpr StoredName kBailingModules[] = {{"self_attn.f_b_proj", "attention.f_proj"},
                                          {"self_attn.g_b_proj", "attention.g_proj"},
                                          {"self_attn.o_proj", "attention.dense"},
                                          {"mlp.gate.e_score_correction_bias", "mlp.gate.expert_bias"},
                                          {"self_attn.", "attention."}};

}  // namespace

constexpr Architecture kKimiLinear{"KimiLinearForCausalLM",
                                   "kimi_linear",
                                   read_kimi_linear,
                                   {.modules = kKimiModules},
                                   "Kimi Linear 48B-A3B",
                                   "kimi-linear"};
constexpr Architecture kBailingHybrid{"BailingHybridForCausalLM",
                                      "bailing_hybrid",
                                      read_bailing_hybrid,
                                      {.embedding = "model.word_embeddings", .modules = kBailingModules},
                                      "Ling 3.0 Flash",
                                      "bailing-hybrid"};

}  // namespace serval
