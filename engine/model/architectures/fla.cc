#include "engine/model/architectures/fla.h"

#include <cmath>
#include <optional>
#include <string>
#include <string_view>

#include "engine/model/architectures/decoder_fields.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

// How the reference computes, and what older files repeat.
void ignore_of_fla(const Fields& config) {
  config.ignore({"attn_mode", "conv_size", "share_conv_kernel", "fuse_norm", "fuse_swiglu", "fuse_cross_entropy",
                 "fuse_linear_cross_entropy", "use_l2warp", "use_gk", "use_gv"});
}

// What the two differ in where a field is absent.
struct FlaRules {
  double expand_k, expand_v, hidden_ratio;
  int num_heads;
};

int read_head_dim(const Fields& config, std::string_view field, double when_absent, int hidden_size, int num_heads, int most) {
  const double expand = config.find_positive(field, 64).value_or(when_absent), width = hidden_size * expand;
  const int64_t whole = std::llround(width);
  if (std::abs(width - static_cast<double>(whole)) > 1e-6 || whole % num_heads != 0)
    config.refuse(field, "times hidden_size must be a multiple of num_heads");
  if (whole / num_heads > most) config.refuse(field, "gives heads of more than " + std::to_string(most));
  return static_cast<int>(whole / num_heads);
}

// Two thirds of the ratio, in whole multiples of 256.
DenseFfnSpec read_ffn(const Fields& config, int hidden_size, double ratio_when_absent) {
  const double ratio = config.find_positive("hidden_ratio", 1024).value_or(ratio_when_absent);
  const std::optional<int> width = config.find_int("intermediate_size", 1, kMaxIntermediate);
  const int usual = (static_cast<int>(hidden_size * ratio * 2 / 3) + 255) / 256 * 256;
  if (!width && usual > kMaxIntermediate) config.refuse("hidden_ratio", "makes the feed-forward parts too wide");
  if (const std::string act = config.find_string("hidden_act").value_or("swish"); act != "swish")
    config.refuse("hidden_act", in_quotes(act) + " is not supported; supported is swish");
  return {.intermediate_size = width.value_or(usual), .activation = Activation::kSilu};
}

// Of the two spellings of the norm behind the scan, the one in which it is computed together with the gate.
constexpr StoredName kModules[] = {{"input_layernorm", "attn_norm"},
                                   {"post_attention_layernorm", "mlp_norm"},
                                   {"self_attn.", "attn."}};
constexpr StoredName kGatedNormModules[] = {{"input_layernorm", "attn_norm"},
                                            {"post_attention_layernorm", "mlp_norm"},
                                            {"self_attn.g_norm", "attn.g_norm_swish_gate"},
                                            {"self_attn.", "attn."}};

// All but what decays come out of.
struct FlaDecoder {
  ModelSpec spec;
  LayerSpec layer;
  GlaSpec mixer;

  ModelSpec finished() {
    layer.mixer = mixer;
    spec.layers.assign(spec.layers.size(), layer);
    set_state_groups(std::vector<bool>(spec.layers.size(), true), spec);
    return std::move(spec);
  }
};

FlaDecoder read_fla(const Fields& config, const FlaRules& rules) {
  FlaDecoder decoder;
  ModelSpec& spec = decoder.spec;
  spec.vocab_size = config.get_int("vocab_size", 1, kMaxVocab);
  spec.hidden_size = config.get_int("hidden_size", 1, kMaxHidden);
  spec.layers.resize(config.get_int("num_hidden_layers", 1, kMaxLayers));
  spec.tied_embeddings = config.get_bool("tie_word_embeddings", false);
  const double eps = config.find_positive("norm_eps", 1).value_or(1e-6);
  spec.final_norm = {.kind = NormSpec::Kind::kRms, .eps = static_cast<float>(eps)};

  GlaSpec& mixer = decoder.mixer;
  mixer.num_heads = config.find_int("num_heads", 1, kMaxHeads).value_or(rules.num_heads);
  if (config.find_int("num_kv_heads", 1, kMaxHeads).value_or(mixer.num_heads) != mixer.num_heads)
    config.refuse("num_kv_heads", "must be num_heads or absent");
  mixer.key_dim = read_head_dim(config, "expand_k", rules.expand_k, spec.hidden_size, mixer.num_heads, kMaxScanKeys);
  mixer.value_dim = read_head_dim(config, "expand_v", rules.expand_v, spec.hidden_size, mixer.num_heads, kMaxHidden);
  mixer.has_gate = config.get_bool("use_output_gate", true);
  mixer.norm = spec.final_norm;
  mixer.norm.has_weight = config.get_bool("elementwise_affine", true);
  spec.names.modules = kModules;
  if (mixer.has_gate && config.get_bool("fuse_norm", true)) spec.names.modules = kGatedNormModules;

  decoder.layer.ffn = read_ffn(config, spec.hidden_size, rules.hidden_ratio);
  decoder.layer.mixer_norm = decoder.layer.ffn_norm = spec.final_norm;
  decoder.layer.rope = kNoRope;
  ignore_of_fla(config);
  return decoder;
}

ModelSpec read_gla(const Fields& config) {
  FlaDecoder decoder = read_fla(config, {.expand_k = 0.5, .expand_v = 1, .hidden_ratio = 4, .num_heads = 4});
  decoder.spec.max_positions = kPositionsOfStates;
  config.ignore({"max_position_embeddings"});  // what it was trained with
  decoder.mixer.gate_rank = 16;
  decoder.mixer.least_log_decay = static_cast<float>(config.find_number("clamp_min", -1e6, -1e-6).value_or(0));
  return decoder.finished();
}

ModelSpec read_retnet(const Fields& config) {
  FlaDecoder decoder = read_fla(config, {.expand_k = 1, .expand_v = 2, .hidden_ratio = 2, .num_heads = 8});
  decoder.spec.max_positions = config.find_int("max_position_embeddings", 1, kMaxPositions).value_or(2048);
  config.ignore({"use_short_conv"});  // the reference asks for none
  GlaSpec& mixer = decoder.mixer;
  if (mixer.key_dim % 2 != 0) config.refuse("expand_k", "gives heads of an odd size, which do not rotate");
  for (int h = 0; h < mixer.num_heads; ++h) mixer.decays.push_back(static_cast<float>(1 - std::exp2(-5.0 - h)));
  decoder.spec.ropes = {{.rotary_dim = mixer.key_dim}};
  decoder.layer.rope = 0;
  return decoder.finished();
}

constexpr TensorNames kNames = {.embedding = "model.embeddings", .modules = kGatedNormModules};

}  // namespace

constexpr Architecture kGla{"GLAForCausalLM", "gla", read_gla, kNames, "GLA 340M, 1.3B, 2.7B", "gla gla-f16"};
constexpr Architecture kRetNet{"RetNetForCausalLM", "retnet", read_retnet, kNames, "RetNet 1.3B, 2.7B", "retnet-f16"};

}  // namespace serval
