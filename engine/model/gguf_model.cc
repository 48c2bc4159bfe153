#include "engine/model/gguf_model.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <variant>

#include "engine/model/quantised/method.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

namespace json = boost::json;

struct Name {
  std::string_view here, folder;  // without ".weight" and the like
};

constexpr Name kFrame[] = {{"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}};
constexpr Name kLayer[] = {{"attn_norm", "input_layernorm"},
                           {"attn_q", "self_attn.q_proj"},
                           {"attn_k", "self_attn.k_proj"},
                           {"attn_v", "self_attn.v_proj"},
                           {"attn_qkv", "self_attn.qkv_proj"},
                           {"attn_output", "self_attn.o_proj"},
                           {"ffn_gate_inp", "mlp.gate"},
                           {"attn_q_norm", "self_attn.q_norm"},
                           {"attn_k_norm", "self_attn.k_norm"},
                           {"ffn_norm", "post_attention_layernorm"},
                           {"ffn_gate", "mlp.gate_proj"},
                           {"ffn_up", "mlp.up_proj"},
                           {"ffn_down", "mlp.down_proj"}};
// Of all experts of a layer, [experts, out, in]; without an ending in the folder's names.
constexpr Name kStacks[] = {{"ffn_gate_exps", "mlp.experts.gate_exps"},
                            {"ffn_up_exps", "mlp.experts.up_exps"},
                            {"ffn_down_exps", "mlp.experts.down_exps"}};
constexpr StoredName kStackedExperts[] = {{"mlp.experts.*.gate_proj", "mlp.experts.gate_exps"},
                                          {"mlp.experts.*.up_proj", "mlp.experts.up_exps"},
                                          {"mlp.experts.*.down_proj", "mlp.experts.down_exps"}};
constexpr Name kGemmaLayer[] = {{"post_attention_norm", "post_attention_layernorm"},
                                {"ffn_norm", "pre_feedforward_layernorm"},
                                {"post_ffw_norm", "post_feedforward_layernorm"}};
constexpr Name kGptOssLayer[] = {{"post_attention_norm", "post_attention_layernorm"}};
constexpr Name kPhiLayer[] = {{"ffn_up", "mlp.gate_up_proj"}};

// What a family's metadata are called and what its config.json says beside the common fields.
class Metadata {
 public:
  explicit Metadata(const GgufFile& gguf) : gguf_(gguf), architecture_(text("general.architecture")) {}

  const std::string& architecture() const { return architecture_; }
  [[noreturn]] void refuse(const std::string& why) const {
    throw std::runtime_error(gguf_.file().path().string() + ": " + why);
  }
  const json::value* find_whole(const std::string& key) const { return gguf_.metadata().if_contains(key); }
  std::string text(const std::string& key) const {
    const json::value* value = find_whole(key);
    return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
  }
  // Of the architecture's own keys.
  const json::value* find(const std::string& key) const {
    asked_.push_back(key);
    return find_whole(architecture_ + "." + key);
  }
  std::optional<double> find_number(const std::string& key) const {
    const json::value* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number()) refuse(in_quotes(architecture_ + "." + key) + " is not a number");
    return value->to_number<double>();
  }
  // A number, or as many equal ones as there are layers.
  int64_t integer(const std::string& key, std::optional<int64_t> fallback = {}) const {
    const json::value* value = find(key);
    if (value != nullptr && value->is_array() && !value->get_array().empty()) {
      const json::array& all = value->get_array();
      if (!std::all_of(all.begin(), all.end(), [&](const json::value& other) { return other == all[0]; }))
        refuse(in_quotes(architecture_ + "." + key) + " differs between layers, which is not supported");
      value = &all[0];
    }
    if (value == nullptr && fallback) return *fallback;
    if (value == nullptr || !value->is_int64()) refuse(in_quotes(architecture_ + "." + key) + " is missing, or no whole number");
    return value->get_int64();
  }
  double number(const std::string& key, double fallback) const { return find_number(key).value_or(fallback); }
  // A key of the architecture that nobody asked for may say what would change the output.
  void refuse_unasked() const {
    for (const auto& [key, value] : gguf_.metadata()) {
      const std::string_view name = key;
      if (!name.starts_with(architecture_ + ".")) continue;
      const std::string_view own = name.substr(architecture_.size() + 1);
      const bool says_nothing = (value.is_int64() && value.get_int64() == 0) || (value.is_bool() && !value.get_bool()) ||
                                (value.is_double() && value.get_double() == 0);
      if (!says_nothing && std::find(asked_.begin(), asked_.end(), own) == asked_.end())
        refuse("the key " + in_quotes(name) + " is not known, and may change the output");
    }
  }

  const GgufFile& file() const { return gguf_; }
  bool has(const char* tensor) const { return gguf_.find(tensor) != nullptr; }
  // A small tensor's numbers, in f32.
  json::array numbers(const char* name) const {
    const GgufTensor* tensor = gguf_.find(name);
    if (tensor->type->name != "F32" || tensor->bytes > 1 << 20) refuse("the tensor " + in_quotes(name) + " is not of F32");
    std::vector<float> values(tensor->bytes / sizeof(float));
    gguf_.file().copy(tensor->offset, tensor->bytes, values.data());
    return json::array(values.begin(), values.end());
  }

 private:
  const GgufFile& gguf_;
  std::string architecture_;
  mutable std::vector<std::string> asked_;
};

using AddFields = void (*)(const Metadata& from, json::object& config);

// Factors for each pair of dimensions are a tensor (Llama 3.1 and later).
void add_llama(const Metadata& from, json::object& config) {
  config["attention_bias"] = from.has("blk.0.attn_q.bias");
  if (!from.has("rope_freqs.weight")) return;
  const json::array factors = from.numbers("rope_freqs.weight");
  config["rope_scaling"] = {{"rope_type", "longrope"},
                            {"factor", 1.0},
                            {"short_factor", factors},
                            {"long_factor", factors},
                            {"original_max_position_embeddings", config["max_position_embeddings"]}};
}

void add_qwen2(const Metadata&, json::object&) {}

void add_qwen3_experts(const Metadata& from, json::object& config) {
  config["num_experts"] = from.integer("expert_count");
  config["num_experts_per_tok"] = from.integer("expert_used_count");
  config["moe_intermediate_size"] = from.integer("expert_feed_forward_length");
  config["norm_topk_prob"] = true;
  config["decoder_sparse_step"] = 1;
}

// Of a llama with experts: Mixtral.
void add_mixtral(const Metadata& from, json::object& config) {
  config["num_local_experts"] = from.integer("expert_count");
  config["num_experts_per_tok"] = from.integer("expert_used_count");
  config["sliding_window"] = nullptr;
}

void add_gpt_oss(const Metadata& from, json::object& config) {
  config["num_local_experts"] = from.integer("expert_count");
  config["num_experts_per_tok"] = from.integer("expert_used_count");
  config["intermediate_size"] = from.integer("expert_feed_forward_length", config["intermediate_size"].get_int64());
  config["sliding_window"] = from.integer("attention.sliding_window", 128);
  if (json::value* scaling = config.if_contains("rope_scaling"); scaling != nullptr) scaling->get_object()["truncate"] = false;
}

void add_granite(const Metadata& from, json::object& config) {
  config["embedding_multiplier"] = from.number("embedding_scale", 1);
  config["residual_multiplier"] = from.number("residual_scale", 1);
  config["attention_multiplier"] = from.number("attention.scale", 1);
  config["logits_scaling"] = from.number("logit_scale", 1);
}

void add_gemma(const Metadata&, json::object& config) {
  config["hidden_act"] = config["hidden_activation"] = "gelu_pytorch_tanh";
}

void add_gemma2(const Metadata& from, json::object& config) {
  const int64_t heads = config["num_attention_heads"].get_int64(), hidden = config["hidden_size"].get_int64();
  // Of the 27B model queries are scaled by another number than the size of a head.
  config["query_pre_attn_scalar"] = config["num_hidden_layers"] == 46 ? hidden / heads : config["head_dim"].get_int64();
  config["attn_logit_softcapping"] = from.number("attn_logit_softcapping", 50);
  config["final_logit_softcapping"] = from.number("final_logit_softcapping", 30);
  config["sliding_window"] = from.integer("attention.sliding_window", 4096);
  config["hidden_activation"] = "gelu_pytorch_tanh";
}

void add_gemma3(const Metadata& from, json::object& config) {
  const int64_t heads = config["num_attention_heads"].get_int64(), hidden = config["hidden_size"].get_int64();
  config["query_pre_attn_scalar"] = config["num_hidden_layers"] == 62 ? hidden / heads : config["head_dim"].get_int64();
  config["sliding_window"] = from.integer("attention.sliding_window", 1024);
  config["sliding_window_pattern"] = from.integer("attention.sliding_window_pattern", 6);
  config["rope_local_base_freq"] = from.number("rope.freq_base_swa", 10000);
  config["hidden_activation"] = "gelu_pytorch_tanh";
  if (const double cap = from.number("final_logit_softcapping", 0); cap > 0) config["final_logit_softcapping"] = cap;
  if (const double cap = from.number("attn_logit_softcapping", 0); cap > 0) config["attn_logit_softcapping"] = cap;
}

void add_phi3(const Metadata& from, json::object& config) {
  const int64_t original = from.integer("rope.scaling.original_context_length", config["max_position_embeddings"].get_int64());
  config["original_max_position_embeddings"] = original;
  const int64_t head_dim = config["head_dim"].get_int64(), rotary = from.integer("rope.dimension_count", head_dim);
  config["partial_rotary_factor"] = static_cast<double>(rotary) / static_cast<double>(head_dim);
  config.erase("head_dim");
  if (const int64_t window = from.integer("attention.sliding_window", 0); window > 0) config["sliding_window"] = window;
  const double amplitude = from.number("rope.scaling.attn_factor", 0);
  if (!from.has("rope_factors_short.weight") || !from.has("rope_factors_long.weight")) return;
  json::object scaling = {{"type", "longrope"},
                          {"short_factor", from.numbers("rope_factors_short.weight")},
                          {"long_factor", from.numbers("rope_factors_long.weight")}};
  if (amplitude > 0) scaling["attention_factor"] = amplitude;
  config["rope_scaling"] = std::move(scaling);
}

struct Family {
  std::string_view name;                        // general.architecture
  std::string_view architecture, model_type;    // of config.json
  AddFields add;
  std::span<const Name> layer = {};  // before kLayer
  bool has_pairs = false;            // rows of queries and keys lie as pairs that rotate together
  bool has_whole_norms = false;      // what the folder adds 1 to has it here
  bool has_experts = false;
};
constexpr Family kFamilies[] = {
    {"llama", "LlamaForCausalLM", "llama", add_llama, {}, true},
    {"qwen2", "Qwen2ForCausalLM", "qwen2", add_qwen2},
    {"qwen3", "Qwen3ForCausalLM", "qwen3", add_qwen2},
    {"llama", "MixtralForCausalLM", "mixtral", add_mixtral, {}, true, false, true},
    {"qwen3moe", "Qwen3MoeForCausalLM", "qwen3_moe", add_qwen3_experts, {}, false, false, true},
    {"gpt-oss", "GptOssForCausalLM", "gpt_oss", add_gpt_oss, kGptOssLayer, false, false, true},
    {"granite", "GraniteForCausalLM", "granite", add_granite, {}, true},
    {"gemma", "GemmaForCausalLM", "gemma", add_gemma, {}, false, true},
    {"gemma2", "Gemma2ForCausalLM", "gemma2", add_gemma2, kGemmaLayer, false, true},
    {"gemma3", "Gemma3ForCausalLM", "gemma3_text", add_gemma3, kGemmaLayer, false, true},
    {"phi3", "Phi3ForCausalLM", "phi3", add_phi3, kPhiLayer},
};

const Family& family_of(const Metadata& metadata) {
  std::string supported;
  const bool has_experts = metadata.integer("expert_count", 0) > 0;
  for (const Family& family : kFamilies) {
    if (family.name == metadata.architecture() && family.has_experts == has_experts) return family;
    supported += (supported.empty() ? "" : ", ") + std::string(family.name);
  }
  metadata.refuse("the architecture " + in_quotes(metadata.architecture()) + " is not supported in GGUF files; supported are " +
                  supported);
}

void add_rope_scaling(const Metadata& from, json::object& config) {
  const json::value* type = from.find("rope.scaling.type");
  const double factor = from.number("rope.scaling.factor", 0);
  const int64_t original = from.integer("rope.scaling.original_context_length", 0);
  for (const char* known : {"rope.scaling.finetuned", "rope.scaling.attn_factor"}) from.find(known);
  const std::string name = type != nullptr && type->is_string() ? std::string(type->get_string()) : "";
  if (name.empty() || name == "none" || name == "longrope" || factor == 0) return;
  if (name != "linear" && name != "yarn") from.refuse("the rotation's scaling " + in_quotes(name) + " is not supported in GGUF files");
  json::object scaling = {{"rope_type", name}, {"factor", factor}};
  if (name == "yarn" && original > 0) scaling["original_max_position_embeddings"] = original;
  config["rope_scaling"] = std::move(scaling);
}

// The plain type that most matrices have; of files whose matrices are all quantised, bf16.
std::string_view dtype_of(const GgufFile& gguf) {
  size_t counts[3] = {};
  constexpr std::string_view kTypes[] = {"F32", "F16", "BF16"}, kNames[] = {"float32", "float16", "bfloat16"};
  for (const GgufTensor& tensor : gguf.tensors()) {
    if (tensor.name.find("ffn_gate_inp") != tensor.name.npos) continue;  // has F32 whatever the others have
    for (int i = 0; i < 3; ++i) counts[i] += tensor.shape.size() > 1 && tensor.type->name == kTypes[i];
  }
  const auto most = std::max_element(std::begin(counts), std::end(counts));
  return *most == 0 ? kNames[2] : kNames[most - std::begin(counts)];
}

// "model.layers.3.mlp.up_proj.weight" for "blk.3.ffn_up.weight"; nothing for what no folder has as a tensor.
std::optional<std::string> folder_name(const Family& family, std::string_view name) {
  const size_t dot = name.rfind('.');
  if (dot == name.npos) return std::nullopt;
  const std::string_view ending = name.substr(dot);
  std::string_view stem = name.substr(0, dot);
  if (!stem.starts_with("blk.")) {
    for (const Name& known : kFrame)
      if (known.here == stem) return std::string(known.folder) + std::string(ending);
    return std::nullopt;
  }
  stem.remove_prefix(4);
  const size_t after = stem.find('.');
  if (after == stem.npos) return std::nullopt;
  const std::string_view layer = stem.substr(0, after), module = stem.substr(after + 1);
  for (const Name& known : kStacks) {
    if (known.here == module)
      return "model.layers." + std::string(layer) + "." + std::string(known.folder) + (ending == ".bias" ? "_bias" : "");
  }
  if (module == "attn_sinks") return "model.layers." + std::string(layer) + ".self_attn.sinks";
  for (const std::span<const Name> names : {family.layer, std::span<const Name>(kLayer)}) {
    for (const Name& known : names)
      if (known.here == module) return "model.layers." + std::string(layer) + "." + std::string(known.folder) + std::string(ending);
  }
  return std::nullopt;
}

// Read into config.json.
bool is_told(std::string_view tensor) {
  return tensor == "rope_freqs.weight" || tensor == "rope_factors_long.weight" || tensor == "rope_factors_short.weight";
}

}  // namespace

json::object config_of_gguf(const GgufFile& gguf) {
  const Metadata from(gguf);
  const Family& family = family_of(from);
  const GgufTensor* embedding = gguf.find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2) from.refuse("there is no tensor 'token_embd.weight', or it is no matrix");
  const int64_t hidden = from.integer("embedding_length"), heads = from.integer("attention.head_count");
  if (heads <= 0 || hidden <= 0) from.refuse("the numbers of heads and of dimensions must be positive");
  const int64_t head_dim = from.integer("attention.key_length", hidden / heads);
  json::object config = {{"architectures", {family.architecture}},
                         {"model_type", family.model_type},
                         {"torch_dtype", dtype_of(gguf)},
                         {"vocab_size", embedding->shape[0]},
                         {"hidden_size", hidden},
                         {"num_hidden_layers", from.integer("block_count")},
                         {"intermediate_size", from.integer("feed_forward_length")},
                         {"num_attention_heads", heads},
                         {"num_key_value_heads", from.integer("attention.head_count_kv", heads)},
                         {"head_dim", head_dim},
                         {"max_position_embeddings", from.integer("context_length")},
                         {"rms_norm_eps", from.number("attention.layer_norm_rms_epsilon", 1e-5)},
                         {"rope_theta", from.number("rope.freq_base", 10000)},
                         {"tie_word_embeddings", !from.has("output.weight")}};
  if (from.integer("attention.value_length", head_dim) != head_dim) from.refuse("keys and values of different sizes are not supported");
  if (from.integer("rope.dimension_count", head_dim) != head_dim && family.name != "phi3")
    from.refuse("a rotation of a part of each head is not supported for this architecture");
  for (const char* known : {"vocab_size", "attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa",
                            "attention.causal", "attention.shared_kv_layers", "use_parallel_residual", "interleave_moe_layer_step",
                            "tensor_data_layout"})
    from.find(known);
  add_rope_scaling(from, config);
  family.add(from, config);
  from.refuse_unasked();
  json::array ends;
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    const json::value* id = from.find_whole(key);
    if (id != nullptr && id->is_int64() && std::find(ends.begin(), ends.end(), *id) == ends.end()) ends.push_back(*id);
  }
  if (!ends.empty()) config["eos_token_id"] = std::move(ends);
  if (const json::value* id = from.find_whole("tokenizer.ggml.bos_token_id"); id != nullptr && id->is_int64()) config["bos_token_id"] = *id;
  return config;
}

GgufTensors tensors_of_gguf(const GgufFile& gguf) {
  const Metadata from(gguf);
  const Family& family = family_of(from);
  GgufTensors result;
  for (const GgufTensor& tensor : gguf.tensors()) {
    if (is_told(tensor.name)) continue;
    const GgufType& type = *tensor.type;
    const auto name = folder_name(family, tensor.name);
    TensorInfo& info = result.tensors.emplace_back();
    info.name = name.value_or(tensor.name);  // which has no place in the model, and is refused so
    info.dtype_name = type.name;
    info.shape = tensor.shape;
    info.offset = tensor.offset;
    info.bytes = tensor.bytes;
    info.file = tensor.file;
    if (type.read == nullptr) {
      info.dtype = format_row(type.format.id).number;
      continue;
    }
    const size_t rank = tensor.shape.size();
    if (rank != 2 && rank != 3) from.refuse("the tensor " + in_quotes(tensor.name) + " is quantised, and no matrix");
    const int64_t n = tensor.shape[rank - 2], k = tensor.shape[rank - 1];
    const size_t bytes = static_cast<size_t>(n * (k / type.block) * type.block_bytes);  // of one matrix
    result.matrices.push_back({.name = info.name,
                               .how = type.name,
                               .shape = tensor.shape,
                               .format = type.format,
                               .tensors = {info.name},
                               .read = [=, read = type.read, name = info.name](const Checkpoint& checkpoint, int64_t index,
                                                                              MatrixParts& parts) {
                                 std::vector<uint8_t> blocks(bytes);
                                 checkpoint.read(*checkpoint.find_part(name), static_cast<size_t>(index) * bytes, bytes, blocks.data());
                                 read(blocks.data(), n, k, parts);
                               }});
  }
  return result;
}

void adapt_to_gguf(const GgufFile& gguf, ModelSpec& spec) {
  const Family& family = family_of(Metadata(gguf));
  if (family.has_whole_norms) spec.final_norm.offset = 0;
  if (family.has_experts) spec.names.modules = kStackedExperts;
  for (LayerSpec& layer : spec.layers) {
    std::visit(
        [&](auto& mixer) {
          if constexpr (std::is_same_v<std::decay_t<decltype(mixer)>, GqaSpec>) {
            if (family.has_pairs) mixer.interleaved_dims = mixer.head_dim;
            if (family.has_whole_norms) mixer.head_norm.offset = 0;
          }
        },
        layer.mixer);
    if (!family.has_whole_norms) continue;
    for (NormSpec* norm : {&layer.mixer_norm, &layer.mixer_post_norm, &layer.ffn_norm, &layer.ffn_post_norm}) norm->offset = 0;
  }
}

}  // namespace serval
