#include "engine/model/architectures/mamba.h"

#include <string>
#include <utility>
#include <vector>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/mamba2_fields.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

// All but the mixer.
ModelSpec read_frame_of_states(const Fields& config, bool ties_when_absent) {
  ModelSpec spec;
  spec.vocab_size = config.get_int("vocab_size", 1, kMaxVocab);
  spec.hidden_size = config.get_int("hidden_size", 1, kMaxHidden);
  spec.layers.resize(config.get_int("num_hidden_layers", 1, kMaxLayers));
  spec.max_positions = config.find_int("max_position_embeddings", 1, kMaxPositions).value_or(kPositionsOfStates);
  spec.tied_embeddings = config.get_bool("tie_word_embeddings", ties_when_absent);
  if (const std::string act = config.find_string("hidden_act").value_or("silu"); act != "silu")
    config.refuse("hidden_act", in_quotes(act) + " is not supported; supported is silu");
  const double eps = config.find_positive("layer_norm_epsilon", 1).value_or(1e-5);
  spec.final_norm = {.kind = NormSpec::Kind::kRms, .eps = static_cast<float>(eps)};
  // What weights were drawn from, how the reference computes, and what older files repeat.
  config.ignore({"time_step_min", "time_step_max", "time_step_floor", "time_step_scale", "time_step_init_scheme",
                 "rescale_prenorm_residual", "residual_in_fp32", "use_mambapy", "use_associative_scan",
                 "use_falcon_mambapy", "rms_norm", "fused_add_norm", "d_inner", "d_model", "n_layer", "ssm_cfg",
                 "pad_vocab_size_multiple"});
  return spec;
}

ModelSpec with_mixers(const MixerSpec& mixer, ModelSpec spec) {
  LayerSpec layer;
  layer.mixer = mixer;
  layer.ffn = NoFfnSpec();
  layer.mixer_norm = spec.final_norm;
  spec.layers.assign(spec.layers.size(), layer);
  set_state_groups(std::vector<bool>(spec.layers.size(), true), spec);
  return spec;
}

MambaSpec read_mixer(const Fields& config, int channels, int hidden_size) {
  MambaSpec mamba;
  mamba.channels = channels;
  mamba.taps = config.find_int("conv_kernel", 2, kMaxConvTaps).value_or(mamba.taps);
  mamba.num_states = config.find_int("state_size", 1, kMaxScanStates).value_or(mamba.num_states);
  const boost::json::value* const rank = config.find("time_step_rank");
  const bool is_auto = rank == nullptr || (rank->is_string() && rank->get_string() == "auto");
  mamba.step_rank = is_auto ? (hidden_size + 15) / 16 : config.get_int("time_step_rank", 1, kMaxHidden);
  mamba.has_bias = config.get_bool("use_bias", false);
  mamba.has_conv_bias = config.get_bool("use_conv_bias", true);
  return mamba;
}

ModelSpec read_mamba(const Fields& config) {
  ModelSpec spec = read_frame_of_states(config, /*ties_when_absent=*/true);
  const int channels = config.find_int("expand", 1, 64).value_or(2) * spec.hidden_size;
  if (config.find_int("intermediate_size", 1, kMaxIntermediate).value_or(channels) != channels)
    config.refuse("intermediate_size", "must be expand times hidden_size");
  const MambaSpec mixer = read_mixer(config, channels, spec.hidden_size);
  return with_mixers(mixer, std::move(spec));
}

// Steps, b and c are normalised, without weights.
ModelSpec read_falcon_mamba(const Fields& config) {
  ModelSpec spec = read_frame_of_states(config, /*ties_when_absent=*/true);
  const int expanded = config.find_int("expand", 1, 64).value_or(2) * spec.hidden_size;
  const int channels = config.find_int("intermediate_size", 1, kMaxIntermediate).value_or(expanded);
  MambaSpec mixer = read_mixer(config, channels, spec.hidden_size);
  const double eps = config.find_positive("mixer_rms_eps", 1).value_or(1e-6);
  mixer.inner_norm = {.kind = NormSpec::Kind::kRms, .eps = static_cast<float>(eps), .has_weight = false};
  return with_mixers(mixer, std::move(spec));
}

ModelSpec read_mamba2(const Fields& config) {
  ModelSpec spec = read_frame_of_states(config, /*ties_when_absent=*/false);
  Mamba2Spec mixer;
  mixer.num_heads = config.find_int("num_heads", 1, kMaxHeads).value_or(128);
  mixer.head_dim = config.find_int("head_dim", 1, kMaxHeadDim).value_or(64);
  mixer.num_groups = config.find_int("n_groups", 1, kMaxHeads).value_or(8);
  mixer.num_states = config.find_int("state_size", 1, kMaxScanKeys).value_or(128);
  if (mixer.num_heads % mixer.num_groups != 0) config.refuse("num_heads", "must be a multiple of n_groups");
  if (config.find_positive("expand", 64).value_or(2) * spec.hidden_size != static_cast<double>(mixer.inner()))
    config.refuse("expand", "times hidden_size must be num_heads times head_dim");
  mixer.taps = config.find_int("conv_kernel", 2, kMaxConvTaps).value_or(mixer.taps);
  mixer.has_conv_bias = config.get_bool("use_conv_bias", true);
  mixer.has_input_bias = mixer.has_output_bias = config.get_bool("use_bias", false);
  read_step_limits(config, "time_step_limit", mixer);
  mixer.norm = spec.final_norm;
  // The reference computes in chunks of its own, and looks at none of the others.
  config.ignore({"chunk_size", "time_step_rank", "norm_before_gate", "intermediate_size"});
  return with_mixers(mixer, std::move(spec));
}

constexpr StoredName kModules[] = {{"input_layernorm", "norm"}};
constexpr TensorNames kNames{.embedding = "backbone.embeddings",
                             .layers = "backbone.layers",
                             .final_norm = "backbone.norm_f",
                             .modules = kModules};

}  // namespace

constexpr Architecture kMamba{"MambaForCausalLM", "mamba",           read_mamba, kNames,
                              "Mamba 130M to 2.8B", "mamba mamba-f16"};
constexpr Architecture kMamba2{
    "Mamba2ForCausalLM", "mamba2", read_mamba2, kNames, "Mamba 2, Mamba-Codestral", "mamba2 mamba2-bf16"};
constexpr Architecture kFalconMamba{
    "FalconMambaForCausalLM", "falcon_mamba", read_falcon_mamba, kNames, "Falcon-Mamba", "falcon-mamba"};

}  // namespace serval
