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
  const std::optional<int> head_dim = config.find_int("head_dim", 8, kMaxHeadDim);
  if (!head_dim && rules.requires_head_dim) config.refuse("head_dim", "is missing");
  if (!head_dim && hidden_size % spec.num_heads != 0) {
    config.refuse("hidden_size", "must be a multiple of num_attention_heads when head_dim is absent");
  }
  spec.head_dim = head_dim.value_or(hidden_size / spec.num_heads);
  if (spec.head_dim % 8 != 0 || spec.head_dim > kMaxHeadDim) {
    config.refuse("head_dim", "must be a multiple of 8 and at most " + std::to_string(kMaxHeadDim) +
                                  ", not " + std::to_string(spec.head_dim));
  }
  spec.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(spec.head_dim)));
  return spec;
}

DenseFfnSpec read_gated_ffn(const Fields& config, std::string_view activation_field,
                            std::string_view when_absent) {
  DenseFfnSpec spec;
  spec.intermediate_size = config.get_int("intermediate_size", 1, kMaxIntermediate);
  const std::string name = config.find_string(activation_field).value_or(std::string(when_absent));
  if (name != "silu" && name != "gelu_pytorch_tanh") {
    config.refuse(activation_field,
                  in_quotes(name) + " is not supported; supported are silu, gelu_pytorch_tanh");
  }
  spec.activation = name == "silu" ? Activation::kSilu : Activation::kGeluTanh;
  return spec;
}

NormSpec read_rms_norm(const Fields& config) {
  const double eps = config.find_positive("rms_norm_eps", 1).value_or(1e-6);
  return {.kind = NormSpec::Kind::kRms, .eps = static_cast<float>(eps)};
}

namespace {

// The scaling that an object of either spelling describes; what a type does not use is passed over, as the
// reference does.
RopeScaling read_scaling(const Fields& config, const Fields& rope, int max_positions) {
  const std::string_view type_field = rope.find("rope_type") != nullptr ? "rope_type" : "type";
  const std::string type = rope.find_string(type_field).value_or("default");
  RopeScaling scaling;
  if (type == "default") return scaling;
  if (type != "linear" && type != "llama3") {
    rope.refuse(type_field, in_quotes(type) + " is not supported; supported are default, linear, llama3");
  }
  scaling.type = type == "linear" ? RopeScaling::Type::kLinear : RopeScaling::Type::kLlama3;
  const std::optional<double> factor = rope.find_positive("factor", 1e6);
  if (!factor) rope.refuse("factor", "is missing");
  scaling.factor = *factor;
  if (scaling.type == RopeScaling::Type::kLinear) return scaling;

  const std::optional<double> low = rope.find_positive("low_freq_factor", 1e6);
  const std::optional<double> high = rope.find_positive("high_freq_factor", 1e6);
  if (!low || !high || *low >= *high) {
    rope.refuse("high_freq_factor", "and low_freq_factor must both be there, the first above the second");
  }
  scaling.low_freq_factor = *low;
  scaling.high_freq_factor = *high;
  constexpr std::string_view kOriginal = "original_max_position_embeddings";
  scaling.original_max_positions =
      config.find_int(kOriginal, 1, kMaxPositions)
          .value_or(rope.find_int(kOriginal, 1, kMaxPositions).value_or(max_positions));
  return scaling;
}

}  // namespace

std::optional<double> find_theta(const Fields& fields, std::string_view name) {
  return fields.find_positive(name, 1e15);
}

RopeSpec read_rope_object(const Fields& config, const Fields& rope, double theta, int head_dim,
                          int max_positions) {
  const RopeSpec spec{.theta = find_theta(rope, "rope_theta").value_or(theta),
                      .scaling = read_scaling(config, rope, max_positions),
                      .rotary_dim = head_dim};
  refuse_unasked(rope);
  return spec;
}

// Two spellings are in use: rope_theta beside a rope_scaling object, and a rope_parameters object that holds
// rope_theta as well. When a file has both, rope_scaling wins, as it does in the reference.
RopeSpec read_rope(const Fields& config, int head_dim, int max_positions) {
  const double theta = find_theta(config, "rope_theta").value_or(10000);
  std::optional<Fields> rope = config.find_object("rope_scaling");
  if (config.find("rope_parameters") != nullptr && !rope) rope = config.find_object("rope_parameters");
  if (!rope) return {.theta = theta, .scaling = {}, .rotary_dim = head_dim};
  for (const std::string_view layer_type : {"full_attention", "sliding_attention"}) {
    if (rope->find(layer_type) != nullptr)
      rope->refuse(layer_type, "is not supported: one rotation for all layers is");
  }
  return read_rope_object(config, *rope, theta, head_dim, max_positions);
}

LayerSpec pre_norm_layer(const GqaSpec& attention, const FfnSpec& ffn, const NormSpec& norm) {
  LayerSpec layer;
  layer.mixer = attention;
  layer.ffn = ffn;
  layer.mixer_norm = layer.ffn_norm = norm;
  return layer;
}

std::optional<std::vector<bool>> read_layer_types(const Fields& config, int num_layers) {
  const json::value* types = config.find("layer_types");
  if (types == nullptr) return std::nullopt;
  if (!types->is_array() || types->get_array().size() != static_cast<size_t>(num_layers)) {
    config.refuse("layer_types", "must be an array of num_hidden_layers names");
  }
  std::vector<bool> windowed;
  for (const json::value& type : types->get_array()) {
    const bool known = type.is_string() &&
                       (type.get_string() == "full_attention" || type.get_string() == "sliding_attention");
    if (!known)
      config.refuse("layer_types",
                    "holds " + shown_value(type) + "; supported are full_attention, sliding_attention");
    windowed.push_back(type.get_string() == "sliding_attention");
  }
  return windowed;
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
  KvGroupSpec full, windowed{.window = window.value_or(0), .layers = {}};
  for (int l = 0; l < spec.num_layers(); ++l) (is_windowed[l] ? windowed : full).layers.push_back(l);
  for (KvGroupSpec* group : {&full, &windowed}) {
    if (group->layers.empty()) continue;
    for (const int l : group->layers) spec.layers[l].kv_group = static_cast<int>(spec.kv_groups.size());
    spec.kv_groups.push_back(std::move(*group));
  }
}

}  // namespace serval
