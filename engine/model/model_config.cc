#include "engine/model/model_config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string_view>

#include "engine/json/json_reader.h"
#include "engine/model/architectures.h"
#include "engine/model/config_fields.h"
#include "engine/model/quantization.h"
#include "engine/model/safetensors.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

namespace json = boost::json;

// Limits far above any published model and far below where a product of two of them leaves 63 bits.
constexpr int kMaxHidden = 1 << 16;
constexpr int kMaxIntermediate = 1 << 19;
constexpr int kMaxLayers = 1024;
constexpr int kMaxHeads = 1024;
constexpr int kMaxHeadDim = 256;
constexpr int kMaxPositions = 1 << 24;

// Fields with which other families change the forward pass. We compute as if each had its neutral value (or
// were absent), so any other value is refused rather than answered wrongly.
struct NeutralField {
  std::string_view name;
  std::optional<double> neutral;  // none: nothing but null or false will do
};
constexpr NeutralField kNeutralFields[] = {
    {"attn_logit_softcapping", {}},
    {"final_logit_softcapping", {}},
    {"query_pre_attn_scalar", {}},
    {"attention_multiplier", {}},
    {"clip_qkv", {}},
    {"attention_chunk_size", {}},
    {"no_rope_layers", {}},
    {"cross_attention_layers", {}},
    {"is_encoder_decoder", {}},
    {"add_cross_attention", {}},
    {"use_parallel_residual", {}},
    {"parallel_residual", {}},
    {"rope_interleaved", {}},
    {"rope_interleave", {}},
    {"use_qk_norm", {}},
    {"alibi", {}},
    {"num_experts", 0},
    {"num_local_experts", 0},
    {"n_routed_experts", 0},
    {"partial_rotary_factor", 1},
    {"rotary_pct", 1},
    {"embedding_multiplier", 1},
    {"residual_multiplier", 1},
    {"logits_scaling", 1},
    {"logit_scale", 1},
};

void refuse_unsupported(const Fields& config) {
  for (const NeutralField& field : kNeutralFields) {
    const json::value* value = config.find(field.name);
    if (value == nullptr || (value->is_bool() && !value->get_bool())) continue;
    if (field.neutral && value->is_number() && value->to_number<double>() == *field.neutral) continue;
    config.refuse(field.name,
                  "would change the output and is not supported (it is " + shown_value(*value) + ")");
  }
}

Activation read_activation(const Fields& config) {
  const std::string name = config.find_string("hidden_act").value_or("silu");
  if (name == "silu") return Activation::kSilu;
  if (name == "gelu_pytorch_tanh") return Activation::kGeluTanh;
  config.refuse("hidden_act", in_quotes(name) + " is not supported; supported are silu, gelu_pytorch_tanh");
}

// Two spellings are in use: rope_theta beside a rope_scaling object, and a rope_parameters object that holds
// rope_theta as well. When a file has both, rope_scaling wins, as it does in the reference.
void read_rope(const Fields& file, ModelConfig& config) {
  constexpr double kMaxTheta = 1e15;
  config.rope_theta = file.find_positive("rope_theta", kMaxTheta).value_or(10000);
  std::optional<Fields> rope = file.find_object("rope_scaling");
  if (!rope) rope = file.find_object("rope_parameters");
  if (!rope) return;
  for (const std::string_view layer_type : {"full_attention", "sliding_attention"}) {
    if (rope->find(layer_type) != nullptr)
      rope->refuse(layer_type, "is not supported: one rotation for all layers is");
  }
  config.rope_theta = rope->find_positive("rope_theta", kMaxTheta).value_or(config.rope_theta);
  refuse_unsupported(*rope);

  const std::string_view type_field = rope->find("rope_type") != nullptr ? "rope_type" : "type";
  const std::string type = rope->find_string(type_field).value_or("default");
  RopeScaling& scaling = config.rope_scaling;
  if (type == "default") return;
  if (type != "linear" && type != "llama3") {
    rope->refuse(type_field, in_quotes(type) + " is not supported; supported are default, linear, llama3");
  }
  scaling.type = type == "linear" ? RopeScaling::Type::kLinear : RopeScaling::Type::kLlama3;
  const std::optional<double> factor = rope->find_positive("factor", 1e6);
  if (!factor) rope->refuse("factor", "is missing");
  scaling.factor = *factor;
  if (scaling.type == RopeScaling::Type::kLinear) return;

  const std::optional<double> low = rope->find_positive("low_freq_factor", 1e6);
  const std::optional<double> high = rope->find_positive("high_freq_factor", 1e6);
  if (!low || !high || *low >= *high) {
    rope->refuse("high_freq_factor", "and low_freq_factor must both be there, the first above the second");
  }
  scaling.low_freq_factor = *low;
  scaling.high_freq_factor = *high;
  constexpr std::string_view kOriginal = "original_max_position_embeddings";
  scaling.original_max_positions =
      file.find_int(kOriginal, 1, kMaxPositions)
          .value_or(rope->find_int(kOriginal, 1, kMaxPositions).value_or(config.max_positions));
}

// layer_types, one of "full_attention" or "sliding_attention" a layer; nothing when the file has none.
std::optional<std::vector<bool>> read_layer_types(const Fields& file, int num_layers) {
  const json::value* types = file.find("layer_types");
  if (types == nullptr) return std::nullopt;
  if (!types->is_array() || types->get_array().size() != static_cast<size_t>(num_layers)) {
    file.refuse("layer_types", "must be an array of num_hidden_layers names");
  }
  std::vector<bool> windowed;
  for (const json::value& type : types->get_array()) {
    const bool known = type.is_string() &&
                       (type.get_string() == "full_attention" || type.get_string() == "sliding_attention");
    if (!known)
      file.refuse("layer_types",
                  "holds " + shown_value(type) + "; supported are full_attention, sliding_attention");
    windowed.push_back(type.get_string() == "sliding_attention");
  }
  return windowed;
}

void read_windows(const Fields& file, WindowRule rule, ModelConfig& config) {
  const std::optional<int> window = file.find_int("sliding_window", 0, std::numeric_limits<int>::max());
  std::optional<std::vector<bool>> types = read_layer_types(file, config.num_layers);
  std::vector<bool> windowed(config.num_layers, false);
  switch (rule) {
    case WindowRule::kNone:
      // The reference ignores these fields for such an architecture; whoever wrote them expected something
      // else.
      if (window.value_or(0) > 0 && *window < config.max_positions) {
        file.refuse("sliding_window",
                    "would change the output and is not supported for " + config.architecture);
      }
      if (types && *types != windowed) {
        file.refuse("layer_types", "would change the output and is not supported for " + config.architecture);
      }
      break;
    case WindowRule::kAllLayers:
      windowed.assign(config.num_layers, window.has_value());
      if (types && *types != windowed) {
        file.refuse("layer_types",
                    "differs between layers, which is not supported for " + config.architecture);
      }
      break;
    case WindowRule::kPerLayer:
      if (file.get_bool("use_sliding_window", false)) {
        if (!window && types) file.refuse("sliding_window", "is missing although use_sliding_window is true");
        if (window && types) windowed = *types;
        if (window && !types) {
          const int first = file.get_int("max_window_layers", 0, kMaxLayers);
          for (int l = first; l < config.num_layers; ++l) windowed[l] = true;
        }
      } else if (types && *types != windowed) {
        file.refuse("layer_types", "names sliding_attention although use_sliding_window is not true");
      }
      break;
  }
  const bool any = std::find(windowed.begin(), windowed.end(), true) != windowed.end();
  if (any && *window == 0) file.refuse("sliding_window", "must be null or positive, not 0");
  // A window as long as the context hides nothing: the layers need no group of their own.
  if (!any || *window >= config.max_positions) windowed.assign(config.num_layers, false);
  const bool effective = any && *window < config.max_positions;
  config.sliding_window = effective ? *window : 0;
  config.layer_is_windowed = std::move(windowed);
}

DType read_dtype(const Fields& file, const std::filesystem::path& model_dir) {
  const std::string_view field = file.find("dtype") != nullptr ? "dtype" : "torch_dtype";
  const std::optional<std::string> name = file.find_string(field);
  if (name == "float32") return DType::kF32;
  if (name == "float16") return DType::kF16;
  if (name == "bfloat16") return DType::kBF16;
  if (name && name != "auto") {
    file.refuse(field, in_quotes(*name) + " is not supported; supported are float32, float16, bfloat16");
  }
  const Checkpoint checkpoint(model_dir);
  const TensorInfo* embedding = checkpoint.find("model.embed_tokens.weight");
  if (embedding == nullptr || !embedding->dtype || embedding->dtype == DType::kI32) {
    file.refuse(
        field,
        "is missing and the checkpoint has no floating-point tensor 'model.embed_tokens.weight' to tell");
  }
  return *embedding->dtype;
}

// "architectures" names one; tools that convert or fine-tune leave it out, null or empty: then model_type
// says which.
const Architecture& read_architecture(const Fields& file) {
  const auto row = [&](const Architecture& (*find)(std::string_view), std::string_view name) -> const auto& {
    try {
      return find(name);
    } catch (const std::runtime_error& unknown) {
      throw std::runtime_error(file.file() + ": " + unknown.what());
    }
  };
  const json::value* names = file.find("architectures");
  if (names == nullptr || (names->is_array() && names->get_array().empty())) {
    const std::optional<std::string> type = file.find_string("model_type");
    if (!type)
      file.refuse("architectures", "names no architecture, and there is no model_type to tell it by");
    return row(find_architecture_of_type, *type);
  }
  if (!names->is_array() || names->get_array().size() != 1 || !names->get_array()[0].is_string()) {
    file.refuse("architectures", "must be an array with the name of one architecture");
  }
  return row(find_architecture, names->get_array()[0].get_string());
}

void refuse_quantised(const Fields& file) {
  for (const char* field : {"quantization_config", "compression_config"}) {
    const json::value* value = file.find(field);
    if (value == nullptr || (value->is_bool() && !value->get_bool())) continue;
    file.refuse(field, "says that the weights are quantised: " + quantization_name(*value) +
                           " weights are not supported; use the folder with the float32, float16 or "
                           "bfloat16 weights they were made from");
  }
}

}  // namespace

ModelConfig read_model_config(const std::filesystem::path& model_dir) {
  const std::filesystem::path path = model_dir / "config.json";
  const json::object object = read_json_file(path, kMaxConfigBytes);
  const Fields file(object, path.string());

  const Architecture& architecture = read_architecture(file);
  const ConfigDialect* dialect = &architecture.dialect;
  refuse_quantised(file);
  refuse_unsupported(file);

  ModelConfig config;
  config.architecture = architecture.name;
  config.model_type = file.find_string("model_type").value_or("");
  config.vocab_size = file.get_int("vocab_size", 1, kMaxVocab);
  config.hidden_size = file.get_int("hidden_size", 1, kMaxHidden);
  config.intermediate_size = file.get_int("intermediate_size", 1, kMaxIntermediate);
  config.num_layers = file.get_int("num_hidden_layers", 1, kMaxLayers);
  config.max_positions = file.get_int("max_position_embeddings", 1, kMaxPositions);
  config.num_heads = file.get_int("num_attention_heads", 1, kMaxHeads);
  config.num_kv_heads = dialect->requires_num_kv_heads
                            ? file.get_int("num_key_value_heads", 1, kMaxHeads)
                            : file.find_int("num_key_value_heads", 1, kMaxHeads).value_or(config.num_heads);
  if (config.num_heads % config.num_kv_heads != 0) {
    file.refuse("num_attention_heads", "must be a multiple of num_key_value_heads");
  }
  const std::optional<int> head_dim = file.find_int("head_dim", 8, kMaxHeadDim);
  if (!head_dim && dialect->requires_head_dim) file.refuse("head_dim", "is missing");
  if (!head_dim && config.hidden_size % config.num_heads != 0) {
    file.refuse("hidden_size", "must be a multiple of num_attention_heads when head_dim is absent");
  }
  config.head_dim = head_dim.value_or(config.hidden_size / config.num_heads);
  if (config.head_dim % 8 != 0 || config.head_dim > kMaxHeadDim) {
    file.refuse("head_dim", "must be a multiple of 8 and at most " + std::to_string(kMaxHeadDim) + ", not " +
                                std::to_string(config.head_dim));
  }

  config.rms_norm_eps = file.find_positive("rms_norm_eps", 1).value_or(1e-6);
  config.hidden_act = read_activation(file);
  config.tie_word_embeddings = file.get_bool("tie_word_embeddings", false);
  config.attention_bias = config.attention_output_bias = file.get_bool("attention_bias", false);
  if (config.attention_bias && !dialect->reads_attention_bias) {
    file.refuse("attention_bias", "would change the output and is not supported for " + config.architecture);
  }
  config.mlp_bias = file.get_bool("mlp_bias", false);
  if (config.mlp_bias && !dialect->reads_mlp_bias) {
    file.refuse("mlp_bias", "would change the output and is not supported for " + config.architecture);
  }
  read_rope(file, config);
  read_windows(file, dialect->window, config);
  config.dtype = read_dtype(file, model_dir);
  return config;
}

}  // namespace serval
