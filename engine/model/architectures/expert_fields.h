// What the configurations of models with routed experts say in nearly the same words. Beside decoder_fields.h,
// and used as it is.
#pragma once

#include <initializer_list>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/model/config_fields.h"
#include "engine/model/model_spec.h"

namespace serval {

// The fields that a family has for the counts and the width of its experts. Several for one thing: the first that is
// there.
struct ExpertFields {
  std::initializer_list<std::string_view> count = {"num_experts", "num_local_experts", "n_routed_experts"};
  std::string_view per_row = "num_experts_per_tok";
  std::string_view width = "moe_intermediate_size";
};
// Experts without any of the rest, with the activation of `dense`. Asks too for what is of training alone.
MoeFfnSpec read_experts(const Fields& config, const ModelSpec& frame, const DenseFfnSpec& dense,
                        const ExpertFields& fields = {});

// The same feed-forward part in all layers that `has_experts` names; the others keep theirs.
void set_experts(const MoeFfnSpec& experts, const std::vector<bool>& has_experts, ModelSpec& spec);

// decoder_sparse_step and mlp_only_layers: every step-th layer has experts, but for those that are listed.
std::vector<bool> read_sparse_steps(const Fields& config, int num_layers);

// n_shared_experts of moe_intermediate_size each, as one; 0: none (DeepSeek).
MoeFfnSpec read_experts_beside_shared(const Fields& config, const ModelSpec& frame);
// n_group, topk_group.
void read_expert_groups(const Fields& config, MoeFfnSpec& experts, std::string_view count_field = "n_group");
// DeepSeek-V3's routing, beside shared experts: sigmoids with a correction of the choice, groups by their best two,
// norm_topk_prob, routed_scaling_factor.
MoeFfnSpec read_corrected_experts(const Fields& config, const ModelSpec& frame);
// The same of any experts, without shared ones.
void read_corrected_routing(const Fields& config, MoeFfnSpec& experts);
// first_k_dense_replace: so many layers keep their feed-forward part, the others get `experts`. And what
// read_draft_layers reads.
void set_experts_behind_dense(const Fields& config, const MoeFfnSpec& experts, int dense_when_absent, ModelSpec& spec);
// Layers behind the last, which guess more tokens (DeepSeek-V3, section 2.2), are not run.
void leave_draft_layers(int count, ModelSpec& spec);
// num_nextn_predict_layers: so many of them.
void read_draft_layers(const Fields& config, ModelSpec& spec);
// mlp_layer_types, one of "dense" or "sparse" a layer; nothing when there are none.
std::optional<std::vector<bool>> read_mlp_layer_types(const Fields& config, int num_layers);

// Modules of a shared expert that is stored in the singular (Qwen2-MoE).
inline constexpr StoredName kOneSharedExpert[] = {{"mlp.shared_experts.gate_proj", "mlp.shared_expert.gate_proj"},
                                                  {"mlp.shared_experts.up_proj", "mlp.shared_expert.up_proj"},
                                                  {"mlp.shared_experts.down_proj", "mlp.shared_expert.down_proj"}};
// Experts of which two tensors hold all.
inline constexpr StoredName kStackedExperts[] = {{"mlp.experts.*.gate_proj", "mlp.experts.gate_up_proj"},
                                                 {"mlp.experts.*.up_proj", "mlp.experts.gate_up_proj"},
                                                 {"mlp.experts.*.down_proj", "mlp.experts.down_proj"}};
// Experts as Mixtral stores them.
inline constexpr StoredName kMixtralExperts[] = {{"mlp.gate", "block_sparse_moe.gate"},
                                                 {"mlp.experts.*.gate_proj", "block_sparse_moe.experts.*.w1"},
                                                 {"mlp.experts.*.up_proj", "block_sparse_moe.experts.*.w3"},
                                                 {"mlp.experts.*.down_proj", "block_sparse_moe.experts.*.w2"},
                                                 {"mlp.gate.e_score_correction_bias",
                                                  "block_sparse_moe.e_score_correction_bias"}};

}  // namespace serval
