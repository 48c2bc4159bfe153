#include "engine/model/model_config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string_view>

#include "engine/model/architectures.h"
#include "engine/model/json_file.h"
#include "engine/model/safetensors.h"

namespace serval {
namespace {

namespace json = boost::json;

constexpr size_t kMaxConfigBytes = size_t{4} << 20;

// Limits far above any published model and far below where a product of two of them leaves 63 bits.
constexpr int kMaxVocab = 1 << 22;
constexpr int kMaxHidden = 1 << 16;
constexpr int kMaxIntermediate = 1 << 19;
constexpr int kMaxLayers = 1024;
constexpr int kMaxHeads = 1024;
constexpr int kMaxHeadDim = 256;
constexpr int kMaxPositions = 1 << 24;

// A value as the file has it, for a sentence.
std::string shown(const json::value& value) {
  constexpr size_t kMaxShown = 80;
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  std::string text = json::serialize(value);
  if (text.size() > kMaxShown) text.replace(kMaxShown, std::string::npos, "...");
  return text;
}

// An object of the file, asked field by field; JSON null is the same as absent. Every complaint names the
// file and the field.
class Fields {
 public:
  Fields(const json::object& object, std::string file, std::string prefix = {})
      : object_(&object), file_(std::move(file)), prefix_(std::move(prefix)) {}

  [[noreturn]] void refuse(std::string_view field, const std::string& why) const {
    throw std::runtime_error(file_ + ": " + prefix_ + std::string(field) + " " + why);
  }

  const json::value* find(std::string_view field) const {
    const json::value* value = object_->if_contains(field);
    return value == nullptr || value->is_null() ? nullptr : value;
  }

  std::optional<int> find_int(std::string_view field, int low, int high) const {
    const json::value* value = find(field);
    if (value == nullptr) return std::nullopt;
    if (value->is_int64() && value->get_int64() >= low && value->get_int64() <= high) {
      return static_cast<int>(value->get_int64());
    }
    refuse(field, "must be an integer from " + std::to_string(low) + " to " + std::to_string(high) +
                      ", not " + shown(*value));
  }

  int get_int(std::string_view field, int low, int high) const {
    const std::optional<int> value = find_int(field, low, high);
    if (!value) refuse(field, "is missing");
    return *value;
  }

  std::optional<double> find_number(std::string_view field, double low, double high) const {
    const json::value* value = find(field);
    if (value == nullptr) return std::nullopt;
    const double number = value->is_number() ? value->to_number<double>() : std::nan("");
    if (number >= low && number <= high) return number;
    std::ostringstream why;
    why << "must be a number from " << low << " to " << high << ", not " << shown(*value);
    refuse(field, why.str());
  }

  std::optional<double> find_positive(std::string_view field, double high) const {
    const std::optional<double> number = find_number(field, 0, high);
    if (number == 0.0) refuse(field, "must be above 0");
    return number;
  }

  bool get_bool(std::string_view field, bool when_absent) const {
    const json::value* value = find(field);
    if (value == nullptr) return when_absent;
    if (!value->is_bool()) refuse(field, "must be true or false, not " + shown(*value));
    return value->get_bool();
  }

  std::optional<std::string> find_string(std::string_view field) const {
    const json::value* value = find(field);
    if (value == nullptr) return std::nullopt;
    if (!value->is_string()) refuse(field, "must be a string, not " + shown(*value));
    return std::string(value->get_string());
  }

  std::optional<Fields> find_object(std::string_view field) const {
    const json::value* value = find(field);
    if (value == nullptr) return std::nullopt;
    if (!value->is_object()) refuse(field, "must be an object, not " + shown(*value));
    return Fields(value->get_object(), file_, prefix_ + std::string(field) + ".");
  }

 private:
  const json::object* object_;
  std::string file_;
  std::string prefix_;
};

// Fields with which other families change the forward pass. We compute as if each had its neutral value (or
// were absent), so any other value is refused rather than answered wrongly.
struct NeutralField {
  std::string_view name;
  std::optional<double> neutral;  // none: nothing but null or false will do
};
constexpr NeutralField kNeutralFields[] = {
    {"quantization_config", {}},
    {"compression_config", {}},
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
    config.refuse(field.name, "would change the output and is not supported (it is " + shown(*value) + ")");
  }
}

Activation read_activation(const Fields& config) {
  const std::string name = config.find_string("hidden_act").value_or("silu");
  if (name == "silu") return Activation::kSilu;
  if (name == "gelu_pytorch_tanh") return Activation::kGeluTanh;
  config.refuse("hidden_act",
                "'" + name.substr(0, 80) + "' is not supported; supported are silu, gelu_pytorch_tanh");
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
    rope->refuse(type_field,
                 "'" + type.substr(0, 80) + "' is not supported; supported are default, linear, llama3");
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
                  "holds " + shown(type) + "; supported are full_attention, sliding_attention");
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
    file.refuse(field,
                "'" + name->substr(0, 80) + "' is not supported; supported are float32, float16, bfloat16");
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

std::string read_architecture(const Fields& file) {
  const json::value* names = file.find("architectures");
  if (names == nullptr || !names->is_array() || names->get_array().size() != 1 ||
      !names->get_array()[0].is_string()) {
    file.refuse("architectures", "must be an array with the name of one architecture");
  }
  return std::string(names->get_array()[0].get_string());
}

}  // namespace

ModelConfig read_model_config(const std::filesystem::path& model_dir) {
  const std::filesystem::path path = model_dir / "config.json";
  const json::object object = read_json_object(path, kMaxConfigBytes);
  const Fields file(object, path.string());

  ModelConfig config;
  config.architecture = read_architecture(file);
  const ConfigDialect* dialect = nullptr;
  try {
    dialect = &find_architecture(config.architecture).dialect;
  } catch (const std::runtime_error& unknown) {
    throw std::runtime_error(path.string() + ": " + unknown.what());
  }
  refuse_unsupported(file);

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

namespace {

std::vector<int32_t> read_eos(const Fields& file) {
  constexpr size_t kMaxEosIds = 64;
  const json::value* value = file.find("eos_token_id");
  if (value == nullptr) return {};
  json::array one;
  if (!value->is_array()) one.push_back(*value);
  const json::array& ids = value->is_array() ? value->get_array() : one;
  if (ids.size() > kMaxEosIds) file.refuse("eos_token_id", "holds more than 64 ids");
  std::vector<int32_t> out;
  for (const json::value& id : ids) {
    if (!id.is_int64() || id.get_int64() < 0 || id.get_int64() >= kMaxVocab) {
      file.refuse("eos_token_id", "must be a token id or an array of them, not " + shown(id));
    }
    out.push_back(static_cast<int32_t>(id.get_int64()));
  }
  return out;
}

}  // namespace

GenerationDefaults read_generation_defaults(const std::filesystem::path& model_dir) {
  const auto to_float = [](std::optional<double> x) {
    return x ? std::optional<float>(static_cast<float>(*x)) : std::nullopt;
  };
  GenerationDefaults defaults;
  const std::filesystem::path generation_path = model_dir / "generation_config.json";
  if (std::filesystem::exists(generation_path)) {
    const json::object object = read_json_object(generation_path, kMaxConfigBytes);
    const Fields file(object, generation_path.string());
    defaults.temperature = to_float(file.find_number("temperature", 0, 100));
    defaults.top_p = to_float(file.find_positive("top_p", 1));
    defaults.min_p = to_float(file.find_number("min_p", 0, 1));
    defaults.repetition_penalty = to_float(file.find_positive("repetition_penalty", 100));
    defaults.top_k = file.find_int("top_k", 0, kMaxVocab);
    defaults.eos_token_ids = read_eos(file);
    defaults.bos_token_id = file.find_int("bos_token_id", 0, kMaxVocab).value_or(-1);
  }
  const std::filesystem::path config_path = model_dir / "config.json";
  const json::object object = read_json_object(config_path, kMaxConfigBytes);
  const Fields file(object, config_path.string());
  if (defaults.eos_token_ids.empty()) defaults.eos_token_ids = read_eos(file);
  if (defaults.bos_token_id < 0)
    defaults.bos_token_id = file.find_int("bos_token_id", 0, kMaxVocab).value_or(-1);
  return defaults;
}

}  // namespace serval
