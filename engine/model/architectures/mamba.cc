#include "engine/model/architectures/mamba.h"

#include <numeric>
#include <string>
#include <string_view>

#include "engine/model/architectures/decoder_fields.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

// A recurrence has no last position. This is where the tables of one that is given no length end.
constexpr int kUsualPositions = 1 << 17;

ModelSpec read_mamba(const Fields& config) {
  ModelSpec spec;
  spec.vocab_size = config.get_int("vocab_size", 1, kMaxVocab);
  spec.hidden_size = config.get_int("hidden_size", 1, kMaxHidden);
  spec.layers.resize(config.get_int("num_hidden_layers", 1, kMaxLayers));
  spec.max_positions = config.find_int("max_position_embeddings", 1, kMaxPositions).value_or(kUsualPositions);
  spec.tied_embeddings = config.get_bool("tie_word_embeddings", true);

  const auto only = [&](std::string_view field, int usual, int supported) {
    if (config.find_int(field, 1, kMaxHidden).value_or(usual) != supported)
      config.refuse(field, "must be " + std::to_string(supported));
  };
  only("conv_kernel", 4, kConvTaps);
  only("state_size", 16, kScanStates);
  if (const std::string act = config.find_string("hidden_act").value_or("silu"); act != "silu")
    config.refuse("hidden_act", in_quotes(act) + " is not supported; supported is silu");

  MambaSpec mamba;
  mamba.channels = config.find_int("expand", 1, 64).value_or(2) * spec.hidden_size;
  if (config.find_int("intermediate_size", 1, kMaxIntermediate).value_or(mamba.channels) != mamba.channels)
    config.refuse("intermediate_size", "must be expand times hidden_size");
  const boost::json::value* const rank = config.find("time_step_rank");
  const bool is_auto = rank == nullptr || (rank->is_string() && rank->get_string() == "auto");
  mamba.step_rank = is_auto ? (spec.hidden_size + 15) / 16 : config.get_int("time_step_rank", 1, kMaxHidden);
  mamba.has_bias = config.get_bool("use_bias", false);
  mamba.has_conv_bias = config.get_bool("use_conv_bias", true);
  // What weights were drawn from, how the reference computes, and what older files repeat.
  config.ignore({"time_step_min", "time_step_max", "time_step_floor", "time_step_scale",
                 "time_step_init_scheme", "rescale_prenorm_residual", "residual_in_fp32", "use_mambapy",
                 "use_associative_scan", "rms_norm", "fused_add_norm", "d_inner", "d_model", "n_layer",
                 "ssm_cfg", "pad_vocab_size_multiple"});

  const double eps = config.find_positive("layer_norm_epsilon", 1).value_or(1e-5);
  spec.final_norm = {.kind = NormSpec::Kind::kRms, .eps = static_cast<float>(eps)};
  LayerSpec layer;
  layer.mixer = mamba;
  layer.ffn = NoFfnSpec();
  layer.mixer_norm = spec.final_norm;
  spec.layers.assign(spec.layers.size(), layer);
  KvGroupSpec states{.keeps_state = true, .layers = std::vector<int>(spec.layers.size())};
  std::iota(states.layers.begin(), states.layers.end(), 0);
  spec.kv_groups = {states};
  return spec;
}

constexpr StoredName kModules[] = {{"input_layernorm", "norm"}};

}  // namespace

constexpr Architecture kMamba{"MambaForCausalLM",
                              "mamba",
                              read_mamba,
                              {.embedding = "backbone.embeddings",
                               .layers = "backbone.layers",
                               .final_norm = "backbone.norm_f",
                               .modules = kModules},
                              "Mamba 130M to 2.8B", "mamba mamba-f16"};

}  // namespace serval
