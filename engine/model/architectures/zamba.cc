#include "engine/model/architectures/zamba.h"

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/mamba_fields.h"

namespace serval {
namespace {

Mamba2Spec read_mamba(const Fields& config, int hidden_size) {
  Mamba2Spec mamba;
  const int width = config.find_int("mamba_expand", 1, 64).value_or(2) * hidden_size;
  mamba.num_heads = config.find_int("n_mamba_heads", 1, kMaxHeads).value_or(8);
  mamba.num_groups = config.find_int("mamba_ngroups", 1, kMaxHeads).value_or(1);
  mamba.num_states = config.find_int("mamba_d_state", 1, kMaxScanKeys).value_or(64);
  mamba.taps = config.find_int("mamba_d_conv", 2, kMaxConvTaps).value_or(mamba.taps);
  if (width % mamba.num_heads != 0) config.refuse("n_mamba_heads", "must divide mamba_expand times hidden_size");
  if (mamba.num_heads % mamba.num_groups != 0) config.refuse("n_mamba_heads", "must be a multiple of mamba_ngroups");
  mamba.head_dim = width / mamba.num_heads;
  mamba.has_input_bias = mamba.has_output_bias = config.get_bool("add_bias_linear", false);
  mamba.least_step = static_cast<float>(config.find_number("time_step_min", 0, 1e6).value_or(0.001));
  mamba.norm = {.kind = NormSpec::Kind::kRms, .eps = 1e-5f};  // whatever rms_norm_eps is
  return mamba;
}

ZambaBlockSpec read_block(const Fields& config, const ModelSpec& spec) {
  ZambaBlockSpec block;
  block.hidden = spec.hidden_size;
  block.num_heads = config.get_int("num_attention_heads", 1, kMaxHeads);
  if (block.width() % block.num_heads != 0 || block.head_dim() % 8 != 0 || block.head_dim() > kMaxHeadDim)
    config.refuse("num_attention_heads", "times a multiple of 8 must be twice hidden_size");
  if (config.find_int("num_key_value_heads", 1, kMaxHeads).value_or(block.num_heads) != block.num_heads)
    config.refuse("num_key_value_heads", "must be num_attention_heads");
  block.intermediate_size = config.find_int("intermediate_size", 1, kMaxIntermediate).value_or(4 * spec.hidden_size);
  block.activation = read_activation(config, "hidden_act", "gelu");
  block.norm = spec.final_norm;
  return block;
}

// Gives spec its layers: a mixer each, and before some of them (kind 1) a block that others share, of which there are so many
// that take turns.
void set_zamba_layers(const MixerSpec& mixer, const ZambaBlockSpec& block, int num_blocks, const std::vector<int>& kinds, int rope,
                      ModelSpec& spec) {
  std::vector<std::vector<ZambaBlockSpec::User>> users(num_blocks);
  int num_hybrids = 0;
  for (int l = 0; l < spec.num_layers(); ++l) {
    if (kinds[l] != 1) continue;
    users[num_hybrids % users.size()].push_back({l, num_hybrids});
    ++num_hybrids;
  }
  std::vector<LayerSpec> layers;
  std::vector<bool> keeps_state;
  std::vector<int> first(users.size()), used(users.size());  // of each block: the layer with its weights, and its users so far
  num_hybrids = 0;
  for (int l = 0; l < spec.num_layers(); ++l) {
    LayerSpec layer{.mixer = mixer, .ffn = NoFfnSpec(), .mixer_norm = spec.final_norm, .rope = kNoRope, .stored_index = l};
    if (kinds[l] == 1) {
      const size_t b = num_hybrids++ % users.size();
      ZambaBlockSpec own = block;
      own.users = users[b];
      own.user = used[b]++;
      LayerSpec shared{.mixer = own, .ffn = NoFfnSpec(), .rope = rope, .is_aside = true, .stored_index = own.users[0].stored_layer};
      if (own.user == 0) first[b] = static_cast<int>(layers.size());
      else shared.weights_of = first[b];
      layers.push_back(shared);
      keeps_state.push_back(false);
      layer.stored_inside = "mamba_decoder.";
    }
    layers.push_back(layer);
    keeps_state.push_back(true);
  }
  spec.layers = layers;
  spec.keeps_embedding = num_hybrids > 0;
  set_state_groups(keeps_state, spec);
}

// Zamba 1: one block for all, without adapters; its layers' own part is the last projection.
ModelSpec read_zamba(const Fields& config) {
  ModelSpec spec = read_frame(config, /*ties_when_absent=*/true);
  spec.final_norm = read_rms_norm(config, 1e-5);
  HeadMambaSpec mamba;
  read_mamba_fields(config, spec.hidden_size, mamba);
  mamba.num_heads = config.find_int("n_mamba_heads", 1, kMaxHeads).value_or(2);
  if (mamba.channels % mamba.num_heads != 0) config.refuse("n_mamba_heads", "must divide mamba_expand times hidden_size");
  if (read_activation(config, "hidden_mamba_act", "silu") != Activation::kSilu) config.refuse("hidden_mamba_act", "must be silu");
  const ZambaBlockSpec block = read_block(config, spec);
  for (const auto& [field, usual] : {std::pair{"attention_hidden_size", block.width()}, {"attention_head_dim", block.head_dim()}})
    if (config.find_int(field, 1, kMaxHidden).value_or(usual) != usual) config.refuse(field, "must be " + std::to_string(usual));
  const int period = config.find_int("attn_layer_period", 1, kMaxLayers).value_or(6),
            offset = config.find_int("attn_layer_offset", 0, kMaxLayers).value_or(4);
  std::vector<int> kinds;
  for (int l = 0; l < spec.num_layers(); ++l) kinds.push_back(l == 2 || (l > 2 && (l - 3) % period == offset) ? 1 : 0);
  constexpr std::string_view kKinds[] = {"mamba", "hybrid", "linear_attention"};
  for (const char* field : {"layers_block_type", "layer_types"})
    kinds = read_layer_names(config, field, spec.num_layers(), kKinds).value_or(kinds);
  // How the reference computes, and what weights were drawn from.
  config.ignore({"use_mamba_kernels", "use_associative_scan", "num_logits_to_keep", "time_step_min", "time_step_max", "time_step_floor",
                 "head_dim", "rope_theta"});
  set_zamba_layers(mamba, block, 1, kinds, kNoRope, spec);
  return spec;
}

ModelSpec read_zamba2(const Fields& config) {
  ModelSpec spec = read_frame(config, /*ties_when_absent=*/true);
  spec.final_norm = read_rms_norm(config, 1e-5);
  const Mamba2Spec mamba = read_mamba(config, spec.hidden_size);
  ZambaBlockSpec block = read_block(config, spec);
  block.adapter_rank = config.find_int("adapter_rank", 1, kMaxHidden).value_or(128);
  block.has_attention_adapters = config.get_bool("use_shared_attention_adapter", false);
  block.has_ffn_bias = config.get_bool("add_bias_linear", false);
  const bool rotates = config.get_bool("use_mem_rope", false);
  if (rotates) spec.ropes = {read_rope(config, block.head_dim(), spec.max_positions)};
  else config.ignore({"rope_theta", "rope_scaling", "rope_parameters"});
  if (config.get_bool("use_long_context", false)) config.refuse("use_long_context", "is not supported when true");
  constexpr std::string_view kKinds[] = {"mamba", "hybrid", "linear_attention"};
  const std::optional<std::vector<int>> kinds = read_layer_names(config, "layers_block_type", spec.num_layers(), kKinds);
  if (!kinds) config.refuse("layers_block_type", "is missing");
  // What follows from others, how the reference computes, and what it does not look at.
  config.ignore({"layer_types", "hybrid_layer_ids", "mamba_headdim", "attention_head_dim", "head_dim", "attention_hidden_size",
                 "kv_channels", "num_query_groups", "ffn_hidden_size", "chunk_size", "time_step_max", "time_step_floor",
                 "use_mem_eff_path", "use_mamba_kernels", "num_logits_to_keep", "use_conv_bias"});

  set_zamba_layers(mamba, block, config.find_int("num_mem_blocks", 1, kMaxLayers).value_or(1), *kinds, rotates ? 0 : kNoRope, spec);
  return spec;
}

constexpr StoredName kModules[] = {{"mixer.", "mamba."}, {"shared_transformer.", "shared_transf."}};
constexpr StoredName kModules2[] = {{"mixer.", "mamba."},
                                    {"shared_transformer.feed_forward.gate_proj", "shared_transformer.feed_forward.gate_up_proj"},
                                    {"shared_transformer.feed_forward.up_proj", "shared_transformer.feed_forward.gate_up_proj"}};
// Of the block, where it is written for each of its layers.
constexpr std::string_view kCopies[] = {"shared_transf."};

}  // namespace

constexpr Architecture kZamba{"ZambaForCausalLM",
                              "zamba",
                              read_zamba,
                              {.final_norm = "model.final_layernorm", .modules = kModules, .ignored = kCopies},
                              "Zamba 7B",
                              "zamba"};
constexpr Architecture kZamba2{"Zamba2ForCausalLM",
                               "zamba2",
                               read_zamba2,
                               {.final_norm = "model.final_layernorm", .modules = kModules2},
                               "Zamba 2 1.2B, 2.7B, 7B",
                               "zamba2"};

}  // namespace serval
