// What the configurations of most decoders say in the same words, one question a function. A family's reader
// asks those that it shares with others here and the rest itself. Each throws std::runtime_error that names
// the field.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/model/architectures/rope_fields.h"
#include "engine/model/config_fields.h"
#include "engine/model/model_spec.h"

namespace serval {

// A state has no last position. This is where the context of a model ends that says nothing of one.
inline constexpr int kPositionsOfStates = 1 << 17;

// vocab_size, hidden_size, num_hidden_layers, max_position_embeddings, tie_word_embeddings: a model of layers
// without parts.
ModelSpec read_frame(const Fields& config, bool ties_when_absent = false);

// What the absence of a field means.
struct HeadRules {
  bool requires_num_kv_heads = true;  // else: absent means num_attention_heads
  bool requires_head_dim = false;     // else: absent means hidden_size / num_attention_heads
  // attention_bias, of q, k, v and the output; nothing: the family has no such field.
  std::optional<bool> bias = std::nullopt;
};
// num_attention_heads, num_key_value_heads, head_dim, attention_bias. Scores are scaled by 1 / sqrt(head_dim).
GqaSpec read_heads(const Fields& config, int hidden_size, const HeadRules& rules = {});

// intermediate_size, and the activation that a field names.
DenseFfnSpec read_gated_ffn(const Fields& config, std::string_view activation_field = "hidden_act",
                            std::string_view when_absent = "silu");

// The activation that a field names, in any of the reference's spellings.
Activation read_activation(const Fields& config, std::string_view field, std::string_view when_absent);

// A LayerNorm with the epsilon of that field, 1e-5 where it is absent.
NormSpec read_layer_norm(const Fields& config, std::string_view eps_field);

// An RMS norm with rms_norm_eps.
NormSpec read_rms_norm(const Fields& config, double eps_when_absent = 1e-6);

// Layers that are all alike: norms before their parts.
LayerSpec pre_norm_layer(const GqaSpec& attention, const FfnSpec& ffn, const NormSpec& norm);

// The same with norms behind the parts alone (OLMo 2).
LayerSpec post_norm_layer(const GqaSpec& attention, const FfnSpec& ffn, const NormSpec& norm);
inline constexpr StoredName kPostNormModules[] = {{"mixer_post_norm", "post_attention_layernorm"},
                                                  {"ffn_post_norm", "post_feedforward_layernorm"}};

// Gives `spec` layers of this shape, all alike, that see everything, and one rotation.
void set_uniform_layers(const Fields& config, const LayerSpec& layer, const RopeSpec& rope, ModelSpec& spec);

// Which of the names each layer has in an array of num_layers; nothing when there is none.
std::optional<std::vector<int>> read_layer_names(const Fields& config, std::string_view field, int num_layers,
                                                 std::span<const std::string_view> names);
// Puts layer l into groups[group_of[l]] (-1: into none). Groups without a layer are left out.
void set_groups(std::vector<KvGroupSpec> groups, const std::vector<int>& group_of, ModelSpec& spec);
// The layers for which it says so keep a state, the others keys and values of every position.
void set_state_groups(const std::vector<bool>& keeps_state, ModelSpec& spec);
// layer_types, one of "full_attention" or "sliding_attention" a layer; nothing when there are none.
std::optional<std::vector<bool>> read_layer_types(const Fields& config, int num_layers);
// Whether each layer has a window: by layer_types, or else every pattern-th layer sees everything.
std::vector<bool> read_windowed(const Fields& config, int num_layers, int pattern);
// sliding_window: any number from 0 on, or nothing.
std::optional<int> read_window(const Fields& config);
// For a family whose layers see everything: refuses a window that would hide something.
void refuse_windows(const Fields& config, const ModelSpec& spec);
// Layers for which is_windowed says so see the last `window` positions. Cuts spec's layers into groups: those
// that forget and those that do not cannot share block tables. A model with layers of one kind has one group;
// with both, group 0 is the one that sees everything. A window as long as the context hides nothing.
void set_windows(const Fields& config, std::optional<int> window, std::vector<bool> is_windowed,
                 ModelSpec& spec);

}  // namespace serval
