#include "engine/model/architectures/expert_fields.h"

#include <algorithm>

#include "engine/model/architectures/decoder_fields.h"

namespace serval {

MoeFfnSpec read_experts(const Fields& config, const ModelSpec& frame, const DenseFfnSpec& dense,
                        const ExpertFields& fields) {
  // A loss of training, and how the reference computes.
  config.ignore({"output_router_logits", "aux_loss_alpha", "seq_aux", "router_dtype", "moe_layer_freq_loss",
                 "router_z_loss_coef", "ep_size", "experts_implementation"});
  MoeFfnSpec ffn;
  ffn.hidden_size = frame.hidden_size;
  std::string_view count = *fields.count.begin();
  for (const std::string_view name : fields.count) {
    if (config.find(name) == nullptr) continue;
    count = name;
    break;
  }
  ffn.num_experts = config.get_int(count, 1, kMaxExperts);
  ffn.top_k = config.get_int(fields.per_row, 1, std::min(ffn.num_experts, kMaxExpertsPerRow));
  ffn.intermediate_size = config.get_int(fields.width, 1, kMaxIntermediate);
  ffn.activation = dense.activation;
  return ffn;
}

void set_experts(const MoeFfnSpec& experts, const std::vector<bool>& has_experts, ModelSpec& spec) {
  for (int l = 0; l < spec.num_layers(); ++l) {
    if (has_experts[l]) spec.layers[l].ffn = experts;
  }
}

std::vector<bool> read_sparse_steps(const Fields& config, int num_layers) {
  const int step = config.find_int("decoder_sparse_step", 1, kMaxLayers).value_or(1);
  const std::vector<int64_t> dense = config.find_integers("mlp_only_layers");
  std::vector<bool> has_experts;
  for (int l = 0; l < num_layers; ++l)
    has_experts.push_back((l + 1) % step == 0 && std::find(dense.begin(), dense.end(), l) == dense.end());
  return has_experts;
}

MoeFfnSpec read_experts_beside_shared(const Fields& config, const ModelSpec& frame) {
  MoeFfnSpec ffn = read_experts(config, frame, read_gated_ffn(config));
  ffn.shared_size = config.find_int("n_shared_experts", 0, kMaxExperts).value_or(0) * ffn.intermediate_size;
  return ffn;
}

void read_expert_groups(const Fields& config, MoeFfnSpec& experts, std::string_view count_field) {
  RoutingRule& rule = experts.rule;
  rule.num_groups = config.find_int(count_field, 1, kMaxExpertGroups).value_or(1);
  rule.groups_chosen = config.find_int("topk_group", 1, rule.num_groups).value_or(rule.num_groups);
  const int size = experts.num_experts / rule.num_groups;
  if (experts.num_experts % rule.num_groups != 0 || rule.groups_chosen * size < experts.top_k || (rule.num_groups > 1 && size < 2))
    config.refuse(count_field, "must cut the experts into groups of equal size, of which topk_group have enough of them");
}

MoeFfnSpec read_corrected_experts(const Fields& config, const ModelSpec& frame) {
  MoeFfnSpec ffn = read_experts_beside_shared(config, frame);
  read_corrected_routing(config, ffn);
  return ffn;
}

void read_corrected_routing(const Fields& config, MoeFfnSpec& ffn) {
  read_expert_groups(config, ffn);
  ffn.has_correction = true;
  ffn.rule.score = RoutingRule::Score::kSigmoid;
  ffn.rule.by_best_two = true;
  ffn.rule.renormalise = config.get_bool("norm_topk_prob", true);
  ffn.rule.least_sum = 1e-20f;
  ffn.rule.scale = static_cast<float>(config.find_positive("routed_scaling_factor", 1e6).value_or(1));
}

void set_experts_behind_dense(const Fields& config, const MoeFfnSpec& experts, int dense_when_absent,
                              ModelSpec& spec) {
  const int dense = config.find_int("first_k_dense_replace", 0, kMaxLayers).value_or(dense_when_absent);
  std::vector<bool> has_experts;
  for (int l = 0; l < spec.num_layers(); ++l) has_experts.push_back(l >= dense);
  set_experts(experts, has_experts, spec);
  read_draft_layers(config, spec);
}

void leave_draft_layers(int count, ModelSpec& spec) {
  for (int l = 0; l < count; ++l) spec.layers_unused.push_back(spec.num_layers() + l);
}

void read_draft_layers(const Fields& config, ModelSpec& spec) {
  // The reference writes the second name, and what it means by default where the file had none.
  const std::optional<int> written = config.find_int("num_mtp_layers", 0, kMaxLayers);
  leave_draft_layers(config.find_int("num_nextn_predict_layers", 0, kMaxLayers).value_or(written.value_or(0)), spec);
}

std::optional<std::vector<bool>> read_mlp_layer_types(const Fields& config, int num_layers) {
  const boost::json::value* types = config.find("mlp_layer_types");
  if (types == nullptr) return std::nullopt;
  if (!types->is_array() || types->get_array().size() != static_cast<size_t>(num_layers))
    config.refuse("mlp_layer_types", "must be an array of num_hidden_layers names");
  std::vector<bool> is_sparse;
  for (const boost::json::value& type : types->get_array()) {
    if (type != "dense" && type != "sparse")
      config.refuse("mlp_layer_types", "holds " + shown_value(type) + "; supported are dense, sparse");
    is_sparse.push_back(type == "sparse");
  }
  return is_sparse;
}

}  // namespace serval
