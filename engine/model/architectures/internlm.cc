#include "engine/model/architectures/internlm.h"

#include "engine/model/architectures/decoder_fields.h"

namespace serval {
namespace {

ModelSpec read_internlm2(const Fields& config) {
  ModelSpec spec = read_frame(config);
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false});
  attention.qkv_bias = attention.output_bias = config.get_bool("bias", true);
  spec.final_norm = read_rms_norm(config);
  set_uniform_layers(config, pre_norm_layer(attention, read_gated_ffn(config), spec.final_norm),
                     read_rope(config, attention.head_dim, spec.max_positions), spec);
  return spec;
}

constexpr StoredName kModules[] = {{"input_layernorm", "attention_norm"},
                                   {"self_attn.q_proj", "attention.wqkv"},
                                   {"self_attn.k_proj", "attention.wqkv"},
                                   {"self_attn.v_proj", "attention.wqkv"},
                                   {"self_attn.o_proj", "attention.wo"},
                                   {"post_attention_layernorm", "ffn_norm"},
                                   {"mlp.gate_proj", "feed_forward.w1"},
                                   {"mlp.up_proj", "feed_forward.w3"},
                                   {"mlp.down_proj", "feed_forward.w2"}};

}  // namespace

constexpr Architecture kInternLm2{"InternLM2ForCausalLM",
                                  "internlm2",
                                  read_internlm2,
                                  {.embedding = "model.tok_embeddings",
                                   .head = "output",
                                   .modules = kModules,
                                   .fused_qkv = FusedQkv::kByKvHead},
                                  "InternLM 2 and 2.5 1.8B to 20B",
                                  "internlm2-bf16"};

}  // namespace serval
