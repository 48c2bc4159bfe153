// Models that read pictures or sound too, of which the text is served.
#include "tests/engine/model/golden_features.h"

namespace serval::testing {

std::vector<ModelCase> composite_models() {
  return {
      {"qwen2-vl", {without_bias("qkv", qkv), without_rotation()}},
      {"qwen2.5-vl", {without_bias("qkv", qkv), without_rotation()}},
      {"qwen3-vl", {without_qk_norm(), without_rotation()}},
      {"muse-glimmer",
       {without_post_norms(), without_qk_norm(), without_norm_offset(), with_rotation_in_every_layer(),
        without_logit_scale(), without_final_logit_cap(), without_window(), with_window_off_by_one(),
        without_embedding_norm()}},
      {"mllama", {without_rope_scaling(), without_rotation()}},
      {"llava", {without_rotation()}},
      {"llava-next", {without_rotation(), without_window(), with_window_off_by_one()}},
      {"llava-next-granite", {without_residual_scale(), without_embedding_scale()}},
      {"llava-onevision", {without_bias("qkv", qkv), without_rotation()}},
      {"aya-vision", {with_rotation_in_every_layer(), without_window()}},
      {"voxtral", {without_rotation()}},
      {"qwen2-audio", {without_bias("qkv", qkv), without_rotation()}},
      {"internvl", {without_bias("qkv", qkv), without_rotation()}},
      {"idefics3", {without_rotation()}},
      {"smolvlm", {without_rotation()}},
      {"glm4v", {without_bias("qkv", qkv), without_post_norms(), with_whole_heads_rotated(), without_rotation()}},
      {"ministral3", {without_rope_scaling(), without_growth_of_queries()}},
      {"mistral3", {without_rotation()}},
      {"mistral3-ministral", {without_rope_scaling(), without_growth_of_queries()}},
  };
}

}  // namespace serval::testing
