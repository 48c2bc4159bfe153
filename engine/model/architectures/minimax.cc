#include "engine/model/architectures/minimax.h"

#include <cmath>
#include <string>
#include <string_view>
#include <vector>

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

// What follows from the number of layers and heads.
constexpr std::string_view kDecays[] = {".slope_rate", ".query_decay", ".key_decay", ".diagonal_decay"};

}  // namespace

constexpr Architecture kMiniMax{"MiniMaxForCausalLM",
                                "minimax",
                                read_minimax,
                                {.modules = kMixtralExperts, .ignored = kDecays},
                                "MiniMax-Text-01, MiniMax-M1 (converted)",
                                "minimax"};

}  // namespace serval
