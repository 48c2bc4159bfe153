#include "engine/model/architectures/phi.h"

#include "engine/model/architectures/decoder_fields.h"

namespace serval {
namespace {

ModelSpec read_phi3(const Fields& config) {
  ModelSpec spec = read_frame(config);
  const GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false});
  spec.final_norm = read_rms_norm(config);
  spec.layers.assign(spec.layers.size(), pre_norm_layer(attention, read_gated_ffn(config), spec.final_norm));
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions, {.part = 1})};
  const std::optional<int> window = read_window(config);
  set_windows(config, window, std::vector<bool>(spec.layers.size(), window.has_value()), spec);
  return spec;
}

constexpr StoredName kModules[] = {{"self_attn.q_proj", "self_attn.qkv_proj"},
                                   {"self_attn.k_proj", "self_attn.qkv_proj"},
                                   {"self_attn.v_proj", "self_attn.qkv_proj"},
                                   {"mlp.gate_proj", "mlp.gate_up_proj"},
                                   {"mlp.up_proj", "mlp.gate_up_proj"}};

}  // namespace

constexpr Architecture kPhi3{
    "Phi3ForCausalLM", "phi3", read_phi3, {.modules = kModules}, "Phi-3, Phi-3.5 mini, Phi-4",
    "phi3 phi3-bf16"};

}  // namespace serval
