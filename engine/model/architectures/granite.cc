#include "engine/model/architectures/granite.h"

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/expert_fields.h"

namespace serval {
namespace {

// Layers with the feed-forward part that read_ffn makes of a model that has its frame.
template <class ReadFfn>
ModelSpec read_granite_with(const Fields& config, const ReadFfn& read_ffn) {
  ModelSpec spec = read_frame(config);
  const auto multiplier = [&](std::string_view field) {
    return static_cast<float>(config.find_positive(field, 1e6).value_or(1));
  };
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false, .bias = false});
  attention.scale = multiplier("attention_multiplier");
  spec.embedding_scale = multiplier("embedding_multiplier");
  spec.residual_scale = multiplier("residual_multiplier");
  spec.logit_scale = 1 / multiplier("logits_scaling");
  spec.final_norm = read_rms_norm(config);
  set_uniform_layers(config, pre_norm_layer(attention, read_ffn(spec), spec.final_norm),
                     read_rope(config, attention.head_dim, spec.max_positions), spec);
  return spec;
}

ModelSpec read_granite(const Fields& config) {
  return read_granite_with(config, [&](const ModelSpec&) {
    DenseFfnSpec ffn = read_gated_ffn(config);
    ffn.bias = config.get_bool("mlp_bias", false);
    return ffn;
  });
}

ModelSpec read_granite_moe(const Fields& config) {
  return read_granite_with(config, [&](const ModelSpec& spec) {
    MoeFfnSpec ffn = read_experts(config, spec, read_gated_ffn(config),
                                  {.count = {"num_local_experts"}, .width = "intermediate_size"});
    ffn.shared_size = config.find_int("shared_intermediate_size", 0, kMaxIntermediate).value_or(0);
    return ffn;
  });
}

constexpr StoredName kMoeModules[] = {{"mlp.gate", "block_sparse_moe.router.layer"},
                                      {"mlp.experts.*.gate_proj", "block_sparse_moe.input_linear.weight"},
                                      {"mlp.experts.*.up_proj", "block_sparse_moe.input_linear.weight"},
                                      {"mlp.experts.*.down_proj", "block_sparse_moe.output_linear.weight"},
                                      {"mlp.shared_experts.gate_proj", "shared_mlp.input_linear"},
                                      {"mlp.shared_experts.up_proj", "shared_mlp.input_linear"},
                                      {"mlp.shared_experts.down_proj", "shared_mlp.output_linear"}};

}  // namespace

constexpr Architecture kGraniteMoe{"GraniteMoeForCausalLM",
                                   "granitemoe",
                                   read_granite_moe,
                                   {.modules = kMoeModules},
                                   "Granite 3.x 1B-A400M, 3B-A800M",
                                   "granite-moe"};
constexpr Architecture kGraniteMoeShared{"GraniteMoeSharedForCausalLM",
                                         "granitemoeshared",
                                         read_granite_moe,
                                         {.modules = kMoeModules},
                                         "Granite MoE with a shared expert",
                                         "granite-moe-shared"};

constexpr Architecture kGranite{"GraniteForCausalLM", "granite",     read_granite, {},
                                "Granite 3.x 2B, 8B", "granite"};

}  // namespace serval
