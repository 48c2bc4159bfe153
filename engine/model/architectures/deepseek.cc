#include "engine/model/architectures/deepseek.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/model/architectures/composite.h"
#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/expert_fields.h"
#include "engine/model/architectures/mla_fields.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

void refuse_other(const Fields& config, std::string_view field, std::string_view usual, std::string_view supported) {
  const std::string name = config.find_string(field).value_or(std::string(usual));
  if (name != supported) config.refuse(field, in_quotes(name) + " is not supported; supported is " + std::string(supported));
}

// The frame with layers of latent attention and dense feed-forward parts, that see everything.
ModelSpec read_dense(const Fields& config, bool has_neighbour_pairs = true) {
  ModelSpec spec = read_frame(config);
  const MlaSpec mla = read_mla(config, has_neighbour_pairs);
  spec.final_norm = read_rms_norm(config);
  LayerSpec layer = pre_norm_layer({}, read_gated_ffn(config), spec.final_norm);
  layer.mixer = mla;
  spec.ropes = {read_rope(config, mla.rotary_dim, spec.max_positions)};
  spec.layers.assign(spec.layers.size(), layer);
  set_windows(config, {}, std::vector<bool>(spec.layers.size(), false), spec);
  if (config.find_int("moe_layer_freq", 1, kMaxLayers).value_or(1) != 1)
    config.refuse("moe_layer_freq", "must be 1");
  return spec;
}


ModelSpec read_deepseek_v2(const Fields& config) {
  ModelSpec spec = read_dense(config);
  refuse_other(config, "scoring_func", "softmax", "softmax");
  MoeFfnSpec experts = read_experts_beside_shared(config, spec);
  const std::string method = config.find_string("topk_method").value_or("greedy");
  if (method == "group_limited_greedy") {
    read_expert_groups(config, experts);
  } else if (method == "greedy") {
    config.ignore({"n_group", "topk_group"});
  } else {
    config.refuse("topk_method", in_quotes(method) + " is not supported; supported are greedy, group_limited_greedy");
  }
  if (config.get_bool("norm_topk_prob", false)) config.refuse("norm_topk_prob", "must be false");
  experts.rule.renormalise = false;
  experts.rule.scale = static_cast<float>(config.find_positive("routed_scaling_factor", 1e6).value_or(1));
  set_experts_behind_dense(config, experts, 0, spec);
  return spec;
}

ModelSpec read_deepseek_v3(const Fields& config) {
  ModelSpec spec = read_dense(config);
  refuse_other(config, "scoring_func", "sigmoid", "sigmoid");
  refuse_other(config, "topk_method", "noaux_tc", "noaux_tc");
  set_experts_behind_dense(config, read_corrected_experts(config, spec), 3, spec);
  return spec;
}

// What tells the index of GLM-5 from that of DeepSeek V3.2.
struct IndexRules {
  int num_heads = 64;
  bool has_neighbour_pairs = false;  // rotates pairs that lie side by side
  bool may_share = false;            // layers may read what the one before them chose
};

// Whether each layer chooses for itself, or reads what the last one before it that does has chosen: by a list, a pattern of
// letters, or every so many layers behind the first.
std::vector<bool> read_choosing_layers(const Fields& config, int num_layers) {
  constexpr std::string_view kKinds[] = {"full", "shared"};
  std::vector<bool> chooses(num_layers);
  const std::optional<std::vector<int>> types = read_layer_names(config, "indexer_types", num_layers, kKinds);
  const std::string pattern = config.find_string("index_topk_pattern").value_or("");
  const int every = config.find_int("index_topk_freq", 1, kMaxLayers).value_or(1);
  const int offset = config.find_int("index_skip_topk_offset", 0, kMaxLayers).value_or(2);
  if (!pattern.empty() && (static_cast<int>(pattern.size()) != num_layers || pattern.find_first_not_of("FS") != pattern.npos))
    config.refuse("index_topk_pattern", "must have an F or an S for each layer");
  for (int l = 0; l < num_layers; ++l)
    chooses[l] = types ? (*types)[l] == 0 : pattern.empty() ? std::max(l - offset + 1, 0) % every == 0 : pattern[l] == 'F';
  if (!chooses[0]) config.refuse("indexer_types", "must have a first layer that chooses");
  return chooses;
}

// Latent attention to keys that an index chooses.
void set_indexers(const Fields& config, const IndexRules& rules, ModelSpec& spec) {
  IndexerSpec indexer;
  indexer.num_heads = config.find_int("index_n_heads", 1, kMaxHeads).value_or(rules.num_heads);
  indexer.head_dim = config.find_int("index_head_dim", 8, kMaxHeadDim).value_or(128);
  indexer.top_k = config.find_int("index_topk", 1, kMaxPositions).value_or(2048);
  indexer.key_norm = {.kind = NormSpec::Kind::kLayer, .eps = 1e-6f};
  const std::vector<bool> chooses =
      rules.may_share ? read_choosing_layers(config, spec.num_layers()) : std::vector<bool>(spec.num_layers(), true);
  if (config.get_bool("indexer_rope_interleave", rules.has_neighbour_pairs) != rules.has_neighbour_pairs)
    config.refuse("indexer_rope_interleave", rules.has_neighbour_pairs ? "must be true" : "must be false");
  config.ignore({"index_share_for_mtp_iteration"});
  MlaSpec reads_chosen = read_mla(config, true);
  if (reads_chosen.query_rank == 0) config.refuse("q_lora_rank", "is needed: the index makes its queries of that rank");
  if (indexer.head_dim % 8 != 0 || indexer.head_dim < reads_chosen.rotary_dim)
    config.refuse("index_head_dim", "must be a multiple of 8 and at least qk_rope_head_dim");
  indexer.interleaved_dims = rules.has_neighbour_pairs ? reads_chosen.rotary_dim : 0;
  reads_chosen.attends_to_chosen = true;
  MlaSpec chooses_too = reads_chosen;
  chooses_too.indexer = indexer;
  for (int l = 0; l < spec.num_layers(); ++l) spec.layers[l].mixer = chooses[l] ? chooses_too : reads_chosen;
}

// In the layers that mlp_layer_types names; without it behind the first ones, `num_dense` where the config does not say.
void set_listed_experts(const Fields& config, int num_dense, ModelSpec& spec) {
  refuse_other(config, "topk_method", "noaux_tc", "noaux_tc");
  const MoeFfnSpec experts = read_corrected_experts(config, spec);
  if (const std::optional<std::vector<bool>> sparse = read_mlp_layer_types(config, spec.num_layers())) {
    set_experts(experts, *sparse, spec);
    config.ignore({"first_k_dense_replace"});
    read_draft_layers(config, spec);
  } else {
    set_experts_behind_dense(config, experts, num_dense, spec);
  }
}

ModelSpec read_indexed(const Fields& config, const IndexRules& rules) {
  constexpr std::string_view kKinds[] = {"indexed_attention"};
  ModelSpec frame = read_frame(config);
  read_layer_names(config, "layer_types", frame.num_layers(), kKinds);
  ModelSpec spec = read_dense(config);
  refuse_other(config, "scoring_func", "sigmoid", "sigmoid");
  set_listed_experts(config, 3, spec);
  set_indexers(config, rules, spec);
  return spec;
}
ModelSpec read_deepseek_v32(const Fields& config) {
  return read_indexed(config, {});
}
ModelSpec read_glm_moe_dsa(const Fields& config) {
  return read_indexed(config, {.num_heads = 32, .has_neighbour_pairs = true, .may_share = true});
}

ModelSpec read_kimi_k25(const Fields& config) {
  config.ignore({"media_placeholder_token_id", "projection_hidden_size", "projection_hidden_act",
                 "projection_layer_norm_eps", "use_unified_vision_chunk", "video_placeholder", "ignore_index"});
  return read_text_part(config, {}, read_deepseek_v3);
}

ModelSpec read_glm4_moe_lite(const Fields& config) {
  ModelSpec spec = read_dense(config);
  config.ignore({"partial_rotary_factor"});  // the reference rotates all of qk_rope_head_dim
  set_listed_experts(config, 1, spec);
  return spec;
}

// MiniCPM3: dense, with factors of the embedding, of what layers add (Hu et al. 2024, section 3.1) and of the logits.
ModelSpec read_minicpm3(const Fields& config) {
  ModelSpec spec = read_dense(config, /*has_neighbour_pairs=*/false);
  spec.embedding_scale = static_cast<float>(config.find_positive("scale_emb", 1e6).value_or(12));
  const double depth = std::sqrt(static_cast<double>(spec.num_layers()));
  spec.residual_scale = static_cast<float>(config.find_positive("scale_depth", 1e6).value_or(1.4) / depth);
  spec.logit_scale =
      static_cast<float>(config.find_int("dim_model_base", 1, kMaxHidden).value_or(256)) / static_cast<float>(spec.hidden_size);
  return spec;
}

constexpr StoredName kIndexers[] = {{"self_attn.indexer.q_proj", "self_attn.indexer.wq_b"},
                                    {"self_attn.indexer.k_proj", "self_attn.indexer.wk"}};

}  // namespace

constexpr Architecture kMiniCpm3{"MiniCPM3ForCausalLM", "minicpm3", read_minicpm3, {}, "MiniCPM3 4B", "minicpm3"};
constexpr Architecture kDeepseekV2{"DeepseekV2ForCausalLM",
                                   "deepseek_v2",
                                   read_deepseek_v2,
                                   {},
                                   "DeepSeek-V2, V2-Lite, V2.5, Coder-V2",
                                   "deepseek-v2 deepseek-v2-lite"};
constexpr Architecture kDeepseekV3{"DeepseekV3ForCausalLM",
                                   "deepseek_v3",
                                   read_deepseek_v3,
                                   {},
                                   "DeepSeek-V3, V3.1, R1; Kimi K2; Moonlight",
                                   "deepseek-v3"};
constexpr Architecture kKimiK25{"KimiK25ForConditionalGeneration",
                                "kimi_k25",
                                read_kimi_k25,
                                text_names(),
                                "Kimi K2.5, K2.6: text",
                                "kimi-k25"};
constexpr Architecture kGlm4MoeLite{
    "Glm4MoeLiteForCausalLM", "glm4_moe_lite", read_glm4_moe_lite, {}, "GLM-4.7-Flash", "glm4-moe-lite"};

constexpr Architecture kDeepseekV32{"DeepseekV32ForCausalLM",
                                    "deepseek_v32",
                                    read_deepseek_v32,
                                    {.modules = kIndexers},
                                    "DeepSeek-V3.2",
                                    "deepseek-v32"};
constexpr Architecture kGlmMoeDsa{"GlmMoeDsaForCausalLM",
                                  "glm_moe_dsa",
                                  read_glm_moe_dsa,
                                  {.modules = kIndexers},
                                  "GLM-5, 5.1",
                                  "glm-moe-dsa"};

}  // namespace serval
