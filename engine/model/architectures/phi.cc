#include "engine/model/architectures/phi.h"

#include <utility>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/expert_fields.h"
#include "engine/model/architectures/plain_decoder.h"

namespace serval {
namespace {

ModelSpec read_phi3(const Fields& config) {
  ModelSpec spec = read_frame(config);
  const GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false});
  spec.final_norm = read_rms_norm(config);
  spec.layers.assign(spec.layers.size(), pre_norm_layer(attention, read_gated_ffn(config), spec.final_norm));
  config.ignore({"full_attn_mod", "interpolate_factor"});  // of Phi-4 mini, to which they say nothing
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions, {.part = 1})};
  const std::optional<int> window = read_window(config);
  set_windows(config, window, std::vector<bool>(spec.layers.size(), window.has_value()), spec);
  return spec;
}

// Phi-3.5-MoE: biases and LayerNorms, and two experts a row, each chosen beside those near it.
ModelSpec read_phimoe(const Fields& config) {
  ModelSpec spec = read_frame(config);
  const GqaSpec attention = read_heads(config, spec.hidden_size, {.bias = false});
  spec.final_norm = read_layer_norm(config, "rms_norm_eps");
  spec.head_bias = config.get_bool("lm_head_bias", false);
  MoeFfnSpec experts = read_experts(config, spec, read_gated_ffn(config),
                                    {.count = {"num_local_experts"}, .width = "intermediate_size"});
  if (experts.top_k != 2) config.refuse("num_experts_per_tok", "must be 2");
  experts.rule = {.score = RoutingRule::Score::kNearest};
  experts.rule.nearness = static_cast<float>(2 * config.find_number("router_jitter_noise", 0, 1).value_or(0.01));
  config.ignore({"input_jitter_noise"});
  spec.layers.assign(spec.layers.size(), pre_norm_layer(attention, experts, spec.final_norm));
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions)};
  const std::optional<int> window = read_window(config);
  set_windows(config, window, std::vector<bool>(spec.layers.size(), window.has_value()), spec);
  return spec;
}

ModelSpec read_phi(const Fields& config) {
  PlainDecoder decoder = read_plain_decoder(
      config, {.activation = "hidden_act", .eps = "layer_norm_eps", .ties_when_absent = false});
  GqaSpec& attention = decoder.attention;
  attention.num_kv_heads =
      config.find_int("num_key_value_heads", 1, kMaxHeads).value_or(attention.num_heads);
  if (attention.num_heads % attention.num_kv_heads != 0)
    config.refuse("num_attention_heads", "must be a multiple of num_key_value_heads");
  if (config.get_bool("qk_layernorm", false)) attention.head_norm = decoder.norm;
  decoder.spec.ropes = {
      read_rope(config, attention.head_dim, decoder.spec.max_positions, {.part = 0.5})};
  decoder.is_parallel = true;
  decoder.has_ffn_norm = false;
  decoder.spec.head_bias = true;
  return made_of(config, std::move(decoder));
}

// Persimmon: as Phi, but one part behind the other, and squares in the feed-forward part.
ModelSpec read_persimmon(const Fields& config) {
  PlainDecoder decoder = read_plain_decoder(
      config, {.activation = "hidden_act", .usual_activation = "relu2", .eps = "layer_norm_eps", .ties_when_absent = false});
  if (config.get_bool("qk_layernorm", true)) decoder.attention.head_norm = decoder.norm;
  config.ignore({"num_key_value_heads"});  // the reference has as many as heads
  decoder.spec.ropes = {
      read_rope(config, decoder.attention.head_dim, decoder.spec.max_positions, {.part = 0.5})};
  return made_of(config, std::move(decoder));
}

constexpr StoredName kPersimmonModules[] = {{"self_attn.q_proj", "self_attn.query_key_value"},
                                            {"self_attn.k_proj", "self_attn.query_key_value"},
                                            {"self_attn.v_proj", "self_attn.query_key_value"},
                                            {"self_attn.o_proj", "self_attn.dense"},
                                            {"self_attn.q_norm.", "self_attn.q_layernorm."},
                                            {"self_attn.k_norm.", "self_attn.k_layernorm."},
                                            {"mlp.up_proj", "mlp.dense_h_to_4h"},
                                            {"mlp.down_proj", "mlp.dense_4h_to_h"}};
constexpr StoredName kPhiModules[] = {{"self_attn.o_proj", "self_attn.dense"},
                                      {"self_attn.q_norm.", "self_attn.q_layernorm."},
                                      {"self_attn.k_norm.", "self_attn.k_layernorm."},
                                      {"mlp.up_proj", "mlp.fc1"},
                                      {"mlp.down_proj", "mlp.fc2"}};
constexpr StoredName kModules[] = {{"self_attn.q_proj", "self_attn.qkv_proj"},
                                   {"self_attn.k_proj", "self_attn.qkv_proj"},
                                   {"self_attn.v_proj", "self_attn.qkv_proj"},
                                   {"mlp.gate_proj", "mlp.gate_up_proj"},
                                   {"mlp.up_proj", "mlp.gate_up_proj"}};

}  // namespace

constexpr Architecture kPhi{"PhiForCausalLM",
                            "phi",
                            read_phi,
                            {.final_norm = "model.final_layernorm", .modules = kPhiModules},
                            "Phi-1, Phi-1.5, Phi-2",
                            "phi phi-norms"};
constexpr Architecture kPersimmon{"PersimmonForCausalLM",
                                  "persimmon",
                                  read_persimmon,
                                  {.final_norm = "model.final_layernorm",
                                   .modules = kPersimmonModules,
                                   .fused_qkv = FusedQkv::kByKvHead},
                                  "Persimmon 8B",
                                  "persimmon"};
constexpr Architecture kPhiMoe{"PhiMoEForCausalLM",    "phimoe",      read_phimoe,
                               {.modules = kMixtralExperts}, "Phi-3.5-MoE", "phimoe"};
constexpr Architecture kPhi3{
    "Phi3ForCausalLM", "phi3", read_phi3, {.modules = kModules}, "Phi-3, Phi-3.5 mini, Phi-4",
    "phi3 phi3-bf16"};

}  // namespace serval
