#include "engine/model/architectures/minimax.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/architectures/composite.h"
#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/expert_fields.h"

namespace serval {
namespace {

// Of each head, what its state is multiplied by at each position: exp of minus a slope as ALiBi has them, the less the
// deeper the layer.
std::vector<float> read_decays(int num_heads, int layer, int num_layers) {
  const double depth = 1 - layer / (num_layers - 1 + 1e-5) + 1e-5;
  std::vector<float> decays;
  for (int h = 0; h < num_heads; ++h)
    decays.push_back(static_cast<float>(std::exp(-std::exp2(-8.0 * (h + 1) / num_heads) * depth)));
  return decays;
}

ModelSpec read_minimax(const Fields& config) {
  ModelSpec spec = read_frame(config);
  const GqaSpec attention = read_heads(config, spec.hidden_size);
  const NormSpec norm = read_rms_norm(config, 1e-5);
  const DenseFfnSpec expert = read_gated_ffn(config);
  LightningSpec lightning;
  lightning.num_heads = attention.num_heads;
  lightning.head_dim = attention.head_dim;
  lightning.activation = expert.activation;
  lightning.norm = {.kind = NormSpec::Kind::kRms, .eps = 1e-6f};  // whatever the configuration says of others
  if (attention.head_dim > kMaxScanKeys) config.refuse("head_dim", "must be at most " + std::to_string(kMaxScanKeys));
  const MoeFfnSpec experts =
      read_experts(config, spec, expert, {.count = {"num_local_experts"}, .width = "intermediate_size"});
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions, {.theta = 1e6})};
  config.ignore({"block_size"});  // how the reference computes

  constexpr std::string_view kKinds[] = {"full_attention", "linear_attention"};
  std::vector<int> kinds;
  for (int l = 0; l < spec.num_layers(); ++l) kinds.push_back(l % 2);
  kinds = read_layer_names(config, "layer_types", spec.num_layers(), kKinds).value_or(kinds);
  // What stands before each sum is normalised again: x alpha + part beta is (x + part beta / alpha), and alpha is in the
  // norm's epsilon.
  struct Factors {
    double alpha, beta;
  };
  const auto factors = [&](const std::string& part) -> Factors {
    return {config.find_positive(part + "_alpha_factor", 1e6).value_or(1),
            config.find_positive(part + "_beta_factor", 1e6).value_or(1)};
  };
  const auto behind = [&](const Factors& of) {
    NormSpec scaled = norm;
    scaled.eps = static_cast<float>(norm.eps / (of.alpha * of.alpha));
    return scaled;
  };
  const Factors of_mixer[] = {factors("full_attn"), factors("linear_attn")}, of_ffn = factors("mlp");
  for (int l = 0; l < spec.num_layers(); ++l) {
    LayerSpec& layer = spec.layers[l] = pre_norm_layer(attention, experts, norm);
    if (kinds[l] == 1) {
      lightning.decays = read_decays(attention.num_heads, l, spec.num_layers());
      layer.mixer = lightning;
    }
    layer.keeps_normed = true;
    if (l > 0) layer.mixer_norm = behind(of_ffn);
    layer.ffn_norm = behind(of_mixer[kinds[l]]);
    layer.mixer_scale = static_cast<float>(of_mixer[kinds[l]].beta / of_mixer[kinds[l]].alpha);
    layer.ffn_scale = static_cast<float>(of_ffn.beta / of_ffn.alpha);
  }
  spec.final_norm = behind(of_ffn);
  if (read_window(config)) config.refuse("sliding_window", "is not supported for this architecture");
  set_state_groups(std::vector<bool>(kinds.begin(), kinds.end()), spec);
  return spec;
}

// By a list of numbers, one a layer; nothing where there is none.
std::optional<std::vector<bool>> read_switches(const Fields& config, std::string_view field, int num_layers) {
  if (config.find(field) == nullptr) return std::nullopt;
  const std::vector<int64_t> numbers = config.find_integers(field);
  if (static_cast<int>(numbers.size()) != num_layers) config.refuse(field, "must have a number for each layer");
  return std::vector<bool>(numbers.begin(), numbers.end());
}

// Layers in which an index chooses blocks of keys, a head of it for each key-value head.
void set_indexers(const Fields& config, const GqaSpec& attention, ModelSpec& spec) {
  const std::optional<Fields> published = config.find_object("sparse_attention_config");
  const auto number = [&](std::string_view field, std::string_view inside, int least, int most, int usual) {
    const std::optional<int> said = published ? published->find_int(inside, least, most) : std::nullopt;
    return said ? *said : config.find_int(field, least, most).value_or(usual);
  };
  IndexerSpec indexer;
  indexer.has_weights = false;
  indexer.num_heads = number("index_n_heads", "sparse_num_index_heads", 1, kMaxHeads, 4);
  indexer.head_dim = number("index_head_dim", "sparse_index_dim", 8, kMaxHeadDim, 128);
  indexer.block = number("index_block_size", "sparse_block_size", 1, kMaxPositions, 128);
  indexer.top_k = number("index_topk_blocks", "sparse_topk_blocks", 1, kMaxPositions, 16);
  indexer.local = number("index_local_blocks", "sparse_local_block", 0, kMaxPositions, 1);
  indexer.query_norm = indexer.key_norm = attention.head_norm;
  constexpr std::string_view kKinds[] = {"full_attention", "minimax_m3_sparse"};
  std::vector<bool> chooses(spec.num_layers(), false);
  if (published) chooses = read_switches(*published, "sparse_attention_freq", spec.num_layers()).value_or(chooses);
  if (const std::optional<std::vector<int>> kinds = read_layer_names(config, "layer_types", spec.num_layers(), kKinds))
    chooses.assign(kinds->begin(), kinds->end());
  if (std::find(chooses.begin(), chooses.end(), true) == chooses.end()) return;
  if (indexer.num_heads != attention.num_kv_heads)
    config.refuse("index_n_heads", "must be num_key_value_heads: each head chooses for one");
  if (indexer.head_dim != attention.head_dim || indexer.head_dim % (2 * indexer.num_heads) != 0)
    config.refuse("index_head_dim", "must be head_dim, and a multiple of twice index_n_heads");
  if (indexer.top_k <= indexer.local) config.refuse("index_topk_blocks", "must be more than index_local_blocks");
  GqaSpec indexed = attention;
  indexed.indexer = indexer;
  for (int l = 0; l < spec.num_layers(); ++l)
    if (chooses[l]) spec.layers[l].mixer = indexed;
}

ModelSpec read_m3_text(const Fields& config) {
  ModelSpec spec = read_frame(config);
  spec.final_norm = read_rms_norm(config);
  spec.final_norm.offset = 1;
  GqaSpec attention = read_heads(config, spec.hidden_size);
  attention.head_norm = spec.final_norm;
  const std::optional<int> rotary_dim = config.find_int("rotary_dim", 2, attention.head_dim);
  const double part = rotary_dim ? static_cast<double>(*rotary_dim) / attention.head_dim : 1;
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions, {.theta = 5e6, .part = part})};
  // x sigmoid(alpha x), with both sides clamped, whatever hidden_act says.
  if (std::abs(config.find_number("swiglu_alpha", 0, 1e6).value_or(1.702) - 1.702) > 1e-6)
    config.refuse("swiglu_alpha", "must be 1.702");
  const float limit = static_cast<float>(config.find_positive("swiglu_limit", 1e6).value_or(7));
  const DenseFfnSpec dense{.intermediate_size = config.find_int("dense_intermediate_size", 1, kMaxIntermediate).value_or(12288),
                           .activation = Activation::kGeluSigmoid,
                           .gate_limit = limit,
                           .up_offset = 1};
  MoeFfnSpec experts =
      read_experts(config, spec, dense, {.count = {"num_local_experts"}, .width = "intermediate_size"});
  experts.gate_limit = limit;
  experts.up_offset = 1;
  experts.has_correction = true;
  experts.rule = {.score = RoutingRule::Score::kSigmoid,
                  .renormalise = true,
                  .scale = static_cast<float>(config.find_positive("routed_scaling_factor", 1e6).value_or(2))};
  experts.shared_size = config.find_int("shared_intermediate_size", 1, kMaxIntermediate).value_or(3072);
  config.ignore({"hidden_act", "use_qk_norm", "qk_norm_type", "use_gemma_norm", "use_routing_bias", "scoring_func",
                 "n_shared_experts", "num_mtp_modules", "mtp_transformer_layers", "use_mtp", "attention_output_gate"});
  const int num_layers = spec.num_layers();
  spec.layers.assign(num_layers, pre_norm_layer(attention, dense, spec.final_norm));
  std::vector<bool> has_experts(num_layers, true);
  has_experts = read_switches(config, "moe_layer_freq", num_layers).value_or(has_experts);
  has_experts = read_mlp_layer_types(config, num_layers).value_or(has_experts);
  set_experts(experts, has_experts, spec);
  set_indexers(config, attention, spec);
  set_windows(config, {}, std::vector<bool>(num_layers, false), spec);
  return spec;
}

ModelSpec read_m3(const Fields& config) {
  config.ignore({"merged_hidden_size", "projector_hidden_size", "patch_merge_size"});  // of pictures
  return read_text_part(config, {}, read_m3_text);
}

constexpr StoredName kM3Modules[] = {{"mlp.gate", "block_sparse_moe.gate"},
                                     {"mlp.experts.*.gate_proj", "block_sparse_moe.experts.*.w1"},
                                     {"mlp.experts.*.up_proj", "block_sparse_moe.experts.*.w3"},
                                     {"mlp.experts.*.down_proj", "block_sparse_moe.experts.*.w2"},
                                     {"mlp.gate.e_score_correction_bias", "block_sparse_moe.e_score_correction_bias"},
                                     {"mlp.shared_experts.", "block_sparse_moe.shared_experts."},
                                     {"self_attn.indexer.q_proj", "self_attn.index_q_proj"},
                                     {"self_attn.indexer.k_proj", "self_attn.index_k_proj"},
                                     {"self_attn.indexer.q_norm", "self_attn.index_q_norm"},
                                     {"self_attn.indexer.k_norm", "self_attn.index_k_norm"}};
// Pictures.
constexpr std::string_view kM3Unused[] = {"vision_tower.", "multi_modal_projector.", "patch_merge_mlp.",
                                          "mtp."};
constexpr TensorNames m3_names() {
  TensorNames names = text_names(kM3Modules);
  names.ignored = kM3Unused;
  return names;
}

// What follows from the number of layers and heads.
constexpr std::string_view kDecays[] = {".slope_rate", ".query_decay", ".key_decay", ".diagonal_decay"};

}  // namespace

constexpr Architecture kMiniMax{"MiniMaxForCausalLM",
                                "minimax",
                                read_minimax,
                                {.modules = kMixtralExperts, .ignored = kDecays},
                                "MiniMax-Text-01, MiniMax-M1 (converted)",
                                "minimax"};

constexpr Architecture kMiniMaxM3{"MiniMaxM3SparseForConditionalGeneration",
                                  "minimax_m3_vl",
                                  read_m3,
                                  m3_names(),
                                  "MiniMax M3: text",
                                  "minimax-m3"};

}  // namespace serval
