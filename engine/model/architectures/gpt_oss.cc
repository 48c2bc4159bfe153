#include "engine/model/architectures/gpt_oss.h"

#include <optional>
#include <vector>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/expert_fields.h"

namespace serval {
namespace {

ModelSpec read_gpt_oss(const Fields& config) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size, {.bias = true});
  attention.has_sinks = true;
  spec.final_norm = read_rms_norm(config, 1e-5);
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions, {.theta = 150000})};
  MoeFfnSpec experts = read_experts(config, spec, read_gated_ffn(config),
                                    {.count = {"num_local_experts"}, .width = "intermediate_size"});
  // x * sigmoid(1.702 x) whatever hidden_act is.
  experts.activation = Activation::kGeluSigmoid;
  if (config.find_positive("swiglu_alpha", 1e6).value_or(1.702) != 1.702) config.refuse("swiglu_alpha", "must be 1.702");
  experts.gate_limit = static_cast<float>(config.find_positive("swiglu_limit", 1e6).value_or(7));
  experts.up_offset = 1;
  experts.router_bias = experts.expert_bias = true;
  spec.layers.assign(spec.layers.size(), pre_norm_layer(attention, experts, spec.final_norm));
  // The context before it was stretched, and the experts of a row: said twice.
  config.ignore({"initial_context_length", "experts_per_token"});
  const std::optional<int> window = read_window(config);
  std::vector<bool> windowed;
  for (int l = 0; l < spec.num_layers(); ++l) windowed.push_back(window && l % 2 == 0);
  set_windows(config, window, read_layer_types(config, spec.num_layers()).value_or(windowed), spec);
  return spec;
}

constexpr StoredName kModules[] = {{"mlp.gate", "mlp.router"},
                                   {"mlp.experts.*.gate_proj", "mlp.experts.gate_up_proj"},
                                   {"mlp.experts.*.up_proj", "mlp.experts.gate_up_proj"},
                                   {"mlp.experts.*.down_proj", "mlp.experts.down_proj"}};

}  // namespace

constexpr Architecture kGptOss{"GptOssForCausalLM",
                               "gpt_oss",
                               read_gpt_oss,
                               {.modules = kModules, .has_transposed_stacks = true, .alternates_gate_up = true},
                               "gpt-oss 20b, 120b (bfloat16)",
                               "gpt-oss"};

}  // namespace serval
