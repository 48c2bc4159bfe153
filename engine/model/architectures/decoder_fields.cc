#include "engine/model/architectures/decoder_fields.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

#include "engine/model/harmless_fields.h"
#include "kernels/base/shown.h"

namespace serval {

namespace json = boost::json;

ModelSpec read_frame(const Fields& config, bool ties_when_absent) {
  ModelSpec spec;
  spec.vocab_size = config.get_int("vocab_size", 1, kMaxVocab);
  spec.hidden_size = config.get_int("hidden_size", 1, kMaxHidden);
  spec.layers.resize(config.get_int("num_hidden_layers", 1, kMaxLayers));
  spec.max_positions = config.get_int("max_position_embeddings", 1, kMaxPositions);
  spec.tied_embeddings = config.get_bool("tie_word_embeddings", ties_when_absent);
  return spec;
}

GqaSpec read_heads(const Fields& config, int hidden_size, const HeadRules& rules) {
  GqaSpec spec;
  spec.num_heads = config.get_int("num_attention_heads", 1, kMaxHeads);
  spec.num_kv_heads = rules.requires_num_kv_heads
                          ? config.get_int("num_key_value_heads", 1, kMaxHeads)
                          : config.find_int("num_key_value_heads", 1, kMaxHeads).value_or(spec.num_heads);
  if (spec.num_heads % spec.num_kv_heads != 0) {
    config.refuse("num_attention_heads", "must be a multiple of num_key_value_heads");
  }
  const std::optional<int> head_dim = config.find_int("head_dim", 2, kMaxHeadDim);
  if (!head_dim && rules.requires_head_dim) config.refuse("head_dim", "is missing");
  if (!head_dim && hidden_size % spec.num_heads != 0) {
    config.refuse("hidden_size", "must be a multiple of num_attention_heads when head_dim is absent");
  }
  spec.head_dim = head_dim.value_or(hidden_size / spec.num_heads);
  if (spec.head_dim % 2 != 0 || spec.head_dim > kMaxHeadDim) {
    config.refuse("head_dim", "must be even and at most " + std::to_string(kMaxHeadDim) +
                                  ", not " + std::to_string(spec.head_dim));
  }
  spec.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(spec.head_dim)));
  if (rules.bias) spec.qkv_bias = spec.output_bias = config.get_bool("attention_bias", *rules.bias);
  return spec;
}

DenseFfnSpec read_gated_ffn(const Fields& config, std::string_view activation_field,
                            std::string_view when_absent) {
  DenseFfnSpec spec;
  spec.intermediate_size = config.get_int("intermediate_size", 1, kMaxIntermediate);
  spec.activation = read_activation(config, activation_field, when_absent);
  return spec;
}

Activation read_activation(const Fields& config, std::string_view field, std::string_view when_absent) {
  struct Name {
    std::string_view name;
    Activation activation;
  };
  constexpr Name kNames[] = {{"silu", Activation::kSilu},
                             {"swish", Activation::kSilu},
                             {"gelu", Activation::kGelu},
                             {"gelu_python", Activation::kGelu},
                             {"gelu_new", Activation::kGeluTanh},
                             {"gelu_pytorch_tanh", Activation::kGeluTanh},
                             {"gelu_python_tanh", Activation::kGeluTanh},
                             {"gelu_accurate", Activation::kGeluTanh},
                             {"gelu_fast", Activation::kGeluTanh},
                             {"quick_gelu", Activation::kGeluSigmoid},
                             {"relu", Activation::kRelu},
                             {"relu2", Activation::kRelu2}};
  const std::string wanted = config.find_string(field).value_or(std::string(when_absent));
  std::string supported;
  for (const auto& [name, activation] : kNames) {
    if (name == wanted) return activation;
    supported += (supported.empty() ? "" : ", ") + std::string(name);
  }
  config.refuse(field, in_quotes(wanted) + " is not supported; supported are " + supported);
}

NormSpec read_layer_norm(const Fields& config, std::string_view eps_field) {
  const double eps = config.find_positive(eps_field, 1).value_or(1e-5);
  return {.kind = NormSpec::Kind::kLayer, .eps = static_cast<float>(eps)};
}

NormSpec read_rms_norm(const Fields& config, double eps_when_absent) {
  const double eps = config.find_positive("rms_norm_eps", 1).value_or(eps_when_absent);
  return {.kind = NormSpec::Kind::kRms, .eps = static_cast<float>(eps)};
}

LayerSpec pre_norm_layer(const GqaSpec& attention, const FfnSpec& ffn, const NormSpec& norm) {
  LayerSpec layer;
  layer.mixer = attention;
  layer.ffn = ffn;
  layer.mixer_norm = layer.ffn_norm = norm;
  return layer;
}

LayerSpec post_norm_layer(const GqaSpec& attention, const FfnSpec& ffn, const NormSpec& norm) {
  LayerSpec layer;
  layer.mixer = attention;
  layer.ffn = ffn;
  layer.mixer_post_norm = layer.ffn_post_norm = norm;
  return layer;
}

void set_uniform_layers(const Fields& config, const LayerSpec& layer, const RopeSpec& rope, ModelSpec& spec) {
  spec.ropes = {rope};
  spec.layers.assign(spec.layers.size(), layer);
  refuse_windows(config, spec);
  set_windows(config, {}, std::vector<bool>(spec.layers.size(), false), spec);
}

std::optional<std::vector<int>> read_layer_names(const Fields& config, std::string_view field, int num_layers,
                                                 std::span<const std::string_view> names) {
  const json::value* types = config.find(field);
  if (types == nullptr) return std::nullopt;
  if (!types->is_array() || types->get_array().size() != static_cast<size_t>(num_layers))
    config.refuse(field, "must be an array of num_hidden_layers names");
  std::vector<int> which;
  for (const json::value& type : types->get_array()) {
    const auto known = std::find_if(names.begin(), names.end(), [&](std::string_view name) {
      return type.is_string() && name == std::string_view(type.get_string());
    });
    if (known == names.end()) {
      std::string supported;
      for (const std::string_view name : names) supported += (supported.empty() ? "" : ", ") + std::string(name);
      config.refuse(field, "holds " + shown_value(type) + "; supported are " + supported);
    }
    which.push_back(static_cast<int>(known - names.begin()));
  }
  return which;
}

std::optional<std::vector<bool>> read_layer_types(const Fields& config, int num_layers) {
  constexpr std::string_view kNames[] = {"full_attention", "sliding_attention"};
  const std::optional<std::vector<int>> which = read_layer_names(config, "layer_types", num_layers, kNames);
  if (!which) return std::nullopt;
  return std::vector<bool>(which->begin(), which->end());
}

std::vector<bool> read_windowed(const Fields& config, int num_layers, int pattern) {
  std::vector<bool> windowed;
  for (int l = 0; l < num_layers; ++l) windowed.push_back((l + 1) % pattern != 0);
  return read_layer_types(config, num_layers).value_or(windowed);
}

std::optional<int> read_window(const Fields& config) {
  return config.find_int("sliding_window", 0, std::numeric_limits<int>::max());
}

void refuse_windows(const Fields& config, const ModelSpec& spec) {
  // The reference ignores these fields for such an architecture; whoever wrote them expected something else.
  const std::optional<int> window = read_window(config);
  if (window.value_or(0) > 0 && *window < spec.max_positions) {
    config.refuse("sliding_window", "would change the output and is not supported for this architecture");
  }
  const std::optional<std::vector<bool>> types = read_layer_types(config, spec.num_layers());
  if (types && std::find(types->begin(), types->end(), true) != types->end()) {
    config.refuse("layer_types", "would change the output and is not supported for this architecture");
  }
}

void set_windows(const Fields& config, std::optional<int> window, std::vector<bool> is_windowed,
                 ModelSpec& spec) {
  const bool any = std::find(is_windowed.begin(), is_windowed.end(), true) != is_windowed.end();
  if (any && *window == 0) config.refuse("sliding_window", "must be null or positive, not 0");
  if (!any || *window >= spec.max_positions) is_windowed.assign(spec.layers.size(), false);
  set_groups({{}, {.window = window.value_or(0), .layers = {}}},
             std::vector<int>(is_windowed.begin(), is_windowed.end()), spec);
}

void set_groups(std::vector<KvGroupSpec> groups, const std::vector<int>& group_of, ModelSpec& spec) {
  for (int l = 0; l < spec.num_layers(); ++l)
    if (group_of[l] >= 0) groups[group_of[l]].layers.push_back(l);
  for (KvGroupSpec& group : groups) {
    if (group.layers.empty()) continue;
    for (const int l : group.layers) spec.layers[l].kv_group = static_cast<int>(spec.kv_groups.size());
    spec.kv_groups.push_back(std::move(group));
  }
}

void set_state_groups(const std::vector<bool>& keeps_state, ModelSpec& spec) {
  set_groups({{}, {.keeps_state = true, .layers = {}}}, std::vector<int>(keeps_state.begin(), keeps_state.end()), spec);
}

}  // namespace serval
