// One small model as every tool stores it, and GGUF files of the architectures that are read from them.
#include "tests/engine/model/golden_features.h"

namespace serval::testing {
namespace {

// A tensor of a quantised matrix that matters.
Feature spoiled(const std::string& ending) {
  return {"tensors " + ending, [](ModelSpec&, ModelWeights&) {}, false, ending};
}

}  // namespace

std::vector<ModelCase> quantised_models() {
  return {
      {"gguf-llama", {without_rope_scaling(), without_rotation()}},
      {"gguf-llama-f16", {without_bias("qkv", qkv), without_rotation()}},
      {"gguf-llama-iq", {without_rotation()}},
      {"gguf-qwen2", {without_bias("qkv", qkv), without_rotation()}},
      {"gguf-qwen3", {without_qk_norm(), without_rotation()}},
      {"gguf-gpt-oss", {without_rotation()}},
      {"gguf-mixtral", {without_rotation()}},
      {"gguf-granite", {without_embedding_scale(), without_residual_scale(), without_logit_scale(), without_rotation()}},
      {"gguf-qwen3moe", {without_qk_norm(), without_rotation()}},
      {"gguf-gemma2", {without_post_norms(), without_rotation()}},
      {"gguf-gemma3", {without_post_norms(), without_qk_norm(), without_rotation()}},
      {"gguf-phi3", {without_amplitude(), without_rotation()}},
      {"quant-gptq4", {spoiled("qweight"), spoiled(".scales")}},
      {"quant-gptq4-zeros", {spoiled("qweight"), spoiled("qzeros"), spoiled(".scales")}},
      {"quant-gptq4-order", {spoiled("qweight"), spoiled("qzeros"), spoiled(".scales"), spoiled("g_idx")}},
      {"quant-gptq8", {spoiled("qweight"), spoiled(".scales")}},
      {"quant-gptq3", {spoiled("qweight"), spoiled("qzeros"), spoiled(".scales")}},
      {"quant-gptq2", {spoiled("qweight"), spoiled("qzeros"), spoiled(".scales")}},
      {"quant-awq", {spoiled("qweight"), spoiled("qzeros"), spoiled(".scales")}},
      {"quant-awq-gemv", {spoiled("qweight"), spoiled("qzeros"), spoiled(".scales")}},
      {"quant-awq-gemv-fast", {spoiled("qweight"), spoiled("qzeros"), spoiled(".scales")}},
      {"quant-ct4", {spoiled("weight_packed"), spoiled("weight_scale")}},
      {"quant-ct4-zeros", {spoiled("weight_packed"), spoiled("weight_scale"), spoiled("weight_zero_point")}},
      {"quant-ct8", {spoiled("weight_packed"), spoiled("weight_scale")}},
      {"quant-ct-nvfp4", {spoiled("weight_packed"), spoiled("weight_scale")}},
      {"quant-modelopt-nvfp4", {spoiled("proj.weight"), spoiled("weight_scale")}},
      {"quant-ct-int8", {spoiled("proj.weight"), spoiled("weight_scale")}},
      {"quant-ct-sparse", {spoiled("compressed"), spoiled("bitmask")}},
      {"quant-ct-sparse-fp8", {spoiled("compressed"), spoiled("bitmask"), spoiled("weight_scale")}},
      {"quant-ct-fp8", {spoiled("proj.weight"), spoiled("weight_scale")}},
      {"quant-hqq4", {spoiled("W_q"), spoiled(".scale"), spoiled(".zero")}},
      {"quant-hqq3", {spoiled("W_q"), spoiled(".scale"), spoiled(".zero")}},
      {"quant-hqq4-axis0", {spoiled("W_q"), spoiled(".scale"), spoiled(".zero")}},
      {"quant-fp8-blocks", {spoiled("proj.weight"), spoiled("weight_scale_inv")}},
      {"quant-fp8", {spoiled("proj.weight")}},
      {"quant-fp8-fp4", {spoiled("proj.weight"), spoiled(".scale")}},
      {"quant-mxfp4", {spoiled("_blocks"), spoiled("_scales")}},
      {"quant-nf4", {spoiled("proj.weight"), spoiled("absmax"), spoiled("quant_map")}},
      {"quant-nf4-nested", {spoiled("proj.weight"), spoiled("weight.absmax"), spoiled("nested_absmax"), spoiled("quant_map")}},
      {"quant-mlx", {spoiled("embed_tokens.weight"), spoiled("proj.weight"), spoiled(".scales"), spoiled(".biases")}},
      {"quant-mlx-mxfp4", {spoiled("proj.weight"), spoiled(".scales")}},
      {"quant-mlx-nvfp4", {spoiled("proj.weight"), spoiled(".scales")}},
      {"quant-mlx-mxfp8", {spoiled("proj.weight"), spoiled(".scales")}},
      {"quant-mlx-experts", {spoiled("up_proj.weight"), spoiled("gate.weight"), spoiled("down_proj.scales"), spoiled(".biases")}},
      {"quant-auto-round", {spoiled("qweight"), spoiled(".scales")}},
      {"quant-fbgemm-fp8", {spoiled("proj.weight"), spoiled("weight_scale")}},
      {"quant-aqlm-2x8", {spoiled(".codes"), spoiled(".codebooks"), spoiled(".scales")}},
      {"quant-aqlm-1x9", {spoiled(".codes"), spoiled(".codebooks"), spoiled(".scales")}},
      {"quant-squeezellm4", {spoiled("qweight"), spoiled("lookup_table")}},
      {"quant-squeezellm3", {spoiled("qweight"), spoiled("lookup_table"), spoiled("vals"), spoiled("full_rows")}},
      {"quant-any-precision", {spoiled("qweight"), spoiled("lut4")}},
      {"quant-any-precision3", {spoiled("qweight"), spoiled("lut3")}},
      {"quant-qserve", {spoiled("qweight"), spoiled("s1_scales"), spoiled("s1_szeros")}},
      {"quant-qserve-groups", {spoiled("qweight"), spoiled("s1_scales"), spoiled("s2_scales"), spoiled("s2_zeros")}},
      {"opt-smoothquant",
       {spoiled("proj.weight"), spoiled("fc1.weight"), spoiled("q_proj.bias"), spoiled("v_proj.bias"), spoiled("fc1.bias"),
        spoiled("out_proj.bias"), with_scale_of_head_dim()}},
      {"quant-quip-sharp", {spoiled("Qidxs"), spoiled(".SU"), spoiled(".SV"), spoiled("fuse_scales")}},
      {"quant-quip-sharp3", {spoiled("Qidxs"), spoiled(".SU"), spoiled(".SV"), spoiled("fuse_scales")}},
      {"quant-quip-sharp4", {spoiled("Qidxs"), spoiled(".SU"), spoiled(".SV"), spoiled("fuse_scales")}},
      {"quant-deepspeed-fp6", {spoiled("proj.weight"), {"rounding", [](ModelSpec&, ModelWeights&) {}, true}}},
      {"quant-bnb-int8", {spoiled("proj.weight"), spoiled("SCB")}},
  };
}

}  // namespace serval::testing
