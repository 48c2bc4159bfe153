#include "server/service/pooling_head.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <iterator>
#include <numbers>
#include <numeric>
#include <stdexcept>
#include <string_view>

#include "engine/json/fields.h"
#include "engine/json/json_reader.h"
#include "engine/model/float_convert.h"
#include "engine/model/gguf.h"
#include "engine/model/model_folder.h"
#include "engine/model/read_model.h"
#include "engine/model/safetensors.h"
#include "kernels/base/regular_file.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using Then = PoolingLayer::Then;

constexpr size_t kMaxModuleBytes = size_t{1} << 20;
constexpr int kMaxVector = 1 << 16;
constexpr size_t kMaxAround = 1 << 10;  // tokens around two texts

std::vector<float> read_floats(const Checkpoint& checkpoint, const TensorInfo& tensor, int64_t first_row, int64_t num_rows) {
  int64_t count = 1;
  for (const int64_t dim : tensor.shape) count *= dim;
  if (!tensor.dtype || tensor.stored != nullptr || tensor.shape.empty() || first_row + num_rows > tensor.shape[0])
    throw std::runtime_error(checkpoint.file_of(tensor).string() + ": tensor " + in_quotes(tensor.name) + " is not one of plain numbers");
  const size_t row_bytes = tensor.bytes / static_cast<size_t>(tensor.shape[0]);
  const auto row = static_cast<size_t>(count / tensor.shape[0]);
  std::vector<float> stored(num_rows * row), values(num_rows * row);
  checkpoint.read(tensor, first_row * row_bytes, num_rows * row_bytes, stored.data());
  convert(stored.data(), *tensor.dtype, values.data(), DType::kF32, values.size());
  return values;
}

const TensorInfo& need(const Checkpoint& checkpoint, std::string_view name, const std::vector<int64_t>& shape, const fs::path& folder) {
  const TensorInfo* const tensor = checkpoint.find(name);
  if (tensor == nullptr || tensor->shape != shape)
    throw std::runtime_error(folder.string() + ": there is no tensor " + in_quotes(name) + " of the shape that its configuration says");
  return *tensor;
}

// The last part of a class's name with modules: "torch.nn.modules.activation.Tanh".
std::string_view class_of(std::string_view name) {
  return name.substr(name.rfind('.') + 1);
}

// As each release of the library has spelled them.
struct Rows {
  std::string_view name;
  const char* field;
  Pooling kind;
};
constexpr Rows kRows[] = {
    {"cls", "pooling_mode_cls_token", Pooling::kFirst},
    {"lasttoken", "pooling_mode_lasttoken", Pooling::kLast},
    {"max", "pooling_mode_max_tokens", Pooling::kMax},
    {"mean", "pooling_mode_mean_tokens", Pooling::kMean},
    {"mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", Pooling::kMeanSqrtLen},
    {"weightedmean", "pooling_mode_weightedmean_tokens", Pooling::kWeightedMean},
};

Pooling read_rows(const Fields& config) {
  if (const std::optional<std::string> mode = config.find_string("pooling_mode")) {
    for (const auto& [name, field, kind] : kRows)
      if (*mode == name) return kind;
    config.refuse("pooling_mode", in_quotes(*mode) + " is not supported; supported are cls, lasttoken, max, mean, mean_sqrt_len_tokens and weightedmean");
  }
  Pooling rows = Pooling::kNone;
  for (const auto& [name, field, kind] : kRows) {
    if (!config.get_bool(field, false)) continue;
    if (rows != Pooling::kNone) config.refuse(field, "is not supported beside another");
    rows = kind;
  }
  if (rows == Pooling::kNone) config.refuse("pooling_mode_lasttoken", "is missing, like every other mode");
  return rows;
}

PoolingLayer read_dense(const Fields& config, const fs::path& folder, int num_in) {
  PoolingLayer layer;
  layer.num_in = config.get_int("in_features", 1, kMaxVector);
  layer.num_out = config.get_int("out_features", 1, kMaxVector);
  if (layer.num_in != num_in) config.refuse("in_features", "must be " + std::to_string(num_in));
  const std::string then = config.find_string("activation_function").value_or("Tanh");
  if (class_of(then) == "Tanh") {
    layer.then = Then::kTanh;
  } else if (class_of(then) != "Identity") {
    config.refuse("activation_function", in_quotes(then) + " is not supported; supported are Identity and Tanh");
  }
  const Checkpoint checkpoint(folder);
  layer.weight = read_floats(checkpoint, need(checkpoint, "linear.weight", {layer.num_out, layer.num_in}, folder), 0, layer.num_out);
  if (config.get_bool("bias", true))
    layer.bias = read_floats(checkpoint, need(checkpoint, "linear.bias", {layer.num_out}, folder), 0, layer.num_out);
  return layer;
}

// Rows of the model's own head: what speaks for a document, less what speaks against it.
PoolingLayer read_word_scores(const fs::path& model, const ModelSpec& spec, int64_t yes, std::optional<int64_t> no) {
  const Checkpoint checkpoint(model);
  const TensorNames names = spec.names.found_in(checkpoint);
  const std::string name = spec.tied_embeddings ? names.embedding_tensor() : names.head_tensor();
  const TensorInfo& tensor = need(checkpoint, name, {spec.vocab_size, spec.hidden_size}, model);
  PoolingLayer layer{.num_in = spec.hidden_size, .num_out = 1, .then = Then::kSigmoid};
  layer.weight = read_floats(checkpoint, tensor, yes, 1);
  if (no) {
    const std::vector<float> against = read_floats(checkpoint, tensor, *no, 1);
    for (size_t i = 0; i < against.size(); ++i) layer.weight[i] -= against[i];
  }
  return layer;
}

// What sentence-transformers puts before a text, by name.
void read_prompts(const fs::path& model, PoolingHead& head) {
  const fs::path path = model / "config_sentence_transformers.json";
  if (!fs::exists(path)) return;
  const json::object file = read_json_file(path, kMaxModuleBytes);
  const Fields fields(file, path.string());
  if (const std::optional<Fields> prompts = fields.find_object("prompts")) {
    for (const auto& [name, text] : prompts->object()) head.prompts.emplace_back(name, prompts->get_string(name));
  }
  head.usual_prompt = fields.find_string("default_prompt_name").value_or("");
  const auto is_usual = [&](const auto& prompt) { return prompt.first == head.usual_prompt; };
  if (!head.usual_prompt.empty() && std::ranges::none_of(head.prompts, is_usual)) fields.refuse("default_prompt_name", "is none of the prompts");
}

// Qwen3's rerankers are published as any model of words: their folder's name alone says what they are.
bool is_qwen3_reranker(const fs::path& model) {
  std::string name = fs::absolute(model).string();
  std::ranges::transform(name, name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return name.find("qwen3-reranker") != name.npos;
}

void read_modules(const fs::path& model, const ModelSpec& spec, PoolingHead& head) {
  const fs::path path = model / "modules.json";
  // A list where the reader takes objects.
  const std::string text = "{\"modules\": " + read_regular_file(path, kMaxModuleBytes) + "}";
  const json::object file = parse_json_file(text, path.string(), 2 * kMaxModuleBytes);
  const Fields fields(file, path.string());
  head.normalises = false;
  for (const json::value& value : fields.get_array("modules")) {
    const Fields module = fields.inside(value, "modules");
    const std::string type = module.get_string("type"), name = module.find_string("path").value_or("");
    const std::string_view kind = class_of(type);
    if (kind == "Transformer") continue;
    if (kind == "Normalize") {
      head.normalises = true;
      continue;
    }
    const fs::path folder = model / name;
    if (name.empty() || name.find("..") != name.npos || !fs::exists(folder / "config.json"))
      module.refuse("path", "must be a folder with a config.json");
    const json::object object = read_json_file(folder / "config.json", kMaxModuleBytes);
    const Fields config(object, (folder / "config.json").string());
    if (kind == "Pooling") {
      head.rows = read_rows(config);
      // The last token is none of the prompt.
      if (config.get_bool("include_prompt", true) || head.rows == Pooling::kLast) continue;
      if (!head.usual_prompt.empty()) config.refuse("include_prompt", "may not be false where the model has a usual prompt");
      head.prompts.clear();
    } else if (kind == "Dense") {
      head.layers.push_back(read_dense(config, folder, head.vector_size));
      head.vector_size = head.layers.back().num_out;
    } else if (kind == "LogitScore") {
      const int yes = config.get_int("true_token_id", 0, spec.vocab_size - 1);
      const std::optional<int> no = config.find_int("false_token_id", 0, spec.vocab_size - 1);
      head.scores = {read_word_scores(model, spec, yes, no ? std::optional<int64_t>(*no) : std::nullopt)};
    } else {
      module.refuse("type", in_quotes(type) + " is not supported; supported are Transformer, Pooling, Dense, Normalize and LogitScore");
    }
  }
}

// The matrix `name` of hidden_size columns, and its bias if there is one.
PoolingLayer read_layer(const Checkpoint& checkpoint, const std::string& name, const ModelSpec& spec, const fs::path& model) {
  const TensorInfo* const tensor = checkpoint.find(name + ".weight");
  if (tensor == nullptr || tensor->shape.size() != 2 || tensor->shape[1] != spec.hidden_size || tensor->shape[0] > kMaxVector)
    throw std::runtime_error(model.string() + ": there is no tensor '" + name + ".weight' of hidden_size columns");
  PoolingLayer layer{.num_in = spec.hidden_size, .num_out = static_cast<int>(tensor->shape[0])};
  layer.weight = read_floats(checkpoint, *tensor, 0, layer.num_out);
  if (checkpoint.find(name + ".bias") != nullptr)
    layer.bias = read_floats(checkpoint, need(checkpoint, name + ".bias", {layer.num_out}, model), 0, layer.num_out);
  return layer;
}

// What the library that trained a cross-encoder says becomes of its numbers, in either of its spellings; nothing: it does not.
std::optional<Then> read_activation_fn(const Fields& config) {
  std::optional<std::string> name = config.find_string("sbert_ce_default_activation_function");
  std::string field = "sbert_ce_default_activation_function";
  if (const std::optional<Fields> library = config.find_object("sentence_transformers"); library && library->find("activation_fn") != nullptr) {
    name = library->find_string("activation_fn");
    field = "sentence_transformers";
  }
  if (!name) return std::nullopt;
  if (class_of(*name) == "Identity") return Then::kNothing;
  if (class_of(*name) == "Sigmoid") return Then::kSigmoid;
  config.refuse(field, in_quotes(*name) + " is not supported; supported are Identity and Sigmoid");
}

void read_norm(const Checkpoint& checkpoint, const std::string& name, const Fields& config, const fs::path& model, PoolingLayer& layer) {
  if (const std::string activation = config.find_string("classifier_activation").value_or("gelu"); activation != "gelu")
    config.refuse("classifier_activation", in_quotes(activation) + " is not supported; supported is gelu");
  const auto read = [&](const std::string& tensor) { return read_floats(checkpoint, need(checkpoint, tensor, {layer.num_out}, model), 0, layer.num_out); };
  layer.norm_weight = read(name + ".weight");
  if (checkpoint.find(name + ".bias") != nullptr) layer.norm_bias = read(name + ".bias");
  layer.norm_eps = static_cast<float>(config.find_positive("norm_eps", 1).value_or(1e-5));
}

// Of an encoder's class: a layer, what is done to its numbers, and the scores behind it. is_within: its name begins as the model's do.
struct EncoderHead {
  std::string_view layer, scores;
  Then then;
  bool is_within = false;
  std::string_view norm = {};  // behind the layer
};
constexpr EncoderHead kEncoderHeads[] = {{"classifier.dense", "classifier.out_proj", Then::kTanh},  // RoBERTa
                                         {"pre_classifier", "classifier", Then::kRelu},             // DistilBERT
                                         {"head.dense", "classifier", Then::kGelu, false, "head.norm"},  // ModernBERT
                                         {"pooler.dense", "classifier", Then::kTanh, true}};

// Of the classes for classification: "score", or of encoders the first of those heads that is there.
std::vector<PoolingLayer> read_scores(const fs::path& model, const ModelSpec& spec, const Fields& config) {
  const Checkpoint checkpoint(model);
  std::vector<PoolingLayer> layers;
  if (spec.is_encoder) {
    const auto name_of = [&](const EncoderHead& head) { return (head.is_within ? std::string(spec.names.optional_prefix) : "") + std::string(head.layer); };
    const auto* head = std::begin(kEncoderHeads);
    while (head + 1 != std::end(kEncoderHeads) && checkpoint.find(name_of(*head) + ".weight") == nullptr) ++head;
    layers.push_back(read_layer(checkpoint, name_of(*head), spec, model));
    layers.back().then = head->then;
    if (!head->norm.empty()) read_norm(checkpoint, std::string(head->norm), config, model, layers.back());
    layers.push_back(read_layer(checkpoint, std::string(head->scores), spec, model));
  } else {
    layers.push_back(read_layer(checkpoint, "score", spec, model));
  }
  PoolingLayer& last = layers.back();
  const std::string problem = config.find_string("problem_type").value_or("");
  if (problem != "regression")
    last.then = last.num_out == 1 || problem == "multi_label_classification" ? Then::kSigmoid : Then::kSoftmax;
  last.then = read_activation_fn(config).value_or(last.then);
  return layers;
}

std::vector<std::string> read_labels(const Fields& config, int count) {
  std::vector<std::string> labels;
  if (const std::optional<Fields> names = config.find_object("id2label")) {
    for (int i = 0; i < count; ++i) labels.push_back(names->find_string(std::to_string(i)).value_or("LABEL_" + std::to_string(i)));
  }
  return labels;
}

// llama.cpp's numbers for it.
void read_gguf_pooling(const fs::path& model, PoolingHead& head) {
  const GgufFile gguf(model);
  const json::value* const arch = gguf.metadata().if_contains("general.architecture");
  if (arch == nullptr || !arch->is_string()) return;
  const std::string key = std::string(arch->get_string()) + ".pooling_type";
  const Fields metadata(gguf.metadata(), model.string());
  const int type = metadata.find_int(key, 0, 4).value_or(3);
  if (type == 1) head.rows = Pooling::kMean;
  if (type == 2) head.rows = Pooling::kFirst;
  if (type == 4) metadata.refuse(key, "is 4: a classifier's scores are not supported in this format");
}

}  // namespace

std::vector<float> PoolingLayer::apply(std::span<const float> x, bool then_too) const {
  std::vector<float> out(num_out);
  for (int i = 0; i < num_out; ++i) {
    double sum = bias.empty() ? 0 : bias[i];
    for (int k = 0; k < num_in; ++k) sum += static_cast<double>(weight[static_cast<size_t>(i) * num_in + k]) * x[k];
    if (then_too && then == Then::kTanh) sum = std::tanh(sum);
    if (then_too && then == Then::kRelu) sum = std::max(sum, 0.0);
    if (then_too && then == Then::kGelu) sum = sum / 2 * (1 + std::erf(sum * std::numbers::sqrt2 / 2));
    if (then_too && then == Then::kSigmoid) sum = 1 / (1 + std::exp(-sum));
    out[i] = static_cast<float>(sum);
  }
  if (!norm_weight.empty()) normalise(out);
  if (!then_too || then != Then::kSoftmax) return out;
  const float most = *std::max_element(out.begin(), out.end());
  double all = 0;
  for (const float value : out) all += std::exp(static_cast<double>(value) - most);
  for (float& value : out) value = static_cast<float>(std::exp(static_cast<double>(value) - most) / all);
  return out;
}

void PoolingLayer::normalise(std::span<float> x) const {
  const double mean = std::accumulate(x.begin(), x.end(), 0.0) / num_out;
  double squares = 0;
  for (const float value : x) squares += (value - mean) * (value - mean);
  const double scale = 1 / std::sqrt(squares / num_out + norm_eps);
  for (int i = 0; i < num_out; ++i) x[i] = static_cast<float>((x[i] - mean) * scale * norm_weight[i] + (norm_bias.empty() ? 0 : norm_bias[i]));
}

std::vector<float> PoolingHead::numbers(const PoolRequest& wanted, std::span<const float> pooled) const {
  std::vector<float> vector(pooled.begin(), pooled.end());
  if (wanted.what == PoolRequest::What::kScores) {
    for (const PoolingLayer& layer : scores) vector = layer.apply(vector, &layer != &scores.back() || wanted.finishes.value_or(true));
    return vector;
  }
  for (const PoolingLayer& layer : layers) vector = layer.apply(vector);
  if (wanted.dimensions) vector.resize(static_cast<size_t>(*wanted.dimensions));
  if (!wanted.finishes.value_or(normalises)) return vector;
  double squares = 0;
  for (const float value : vector) squares += static_cast<double>(value) * value;
  if (squares == 0) return vector;
  const double scale = 1 / std::sqrt(squares);
  for (float& value : vector) value = static_cast<float>(value * scale);
  return vector;
}

PoolingHead read_pooling_head(const fs::path& model, const ModelSpec& spec, const Tokenizer& tokenizer) {
  PoolingHead head;
  head.vector_size = spec.hidden_size;
  const ModelHead kind = read_model_head(model);
  head.writes_text = kind == ModelHead::kWords;
  head.joins_texts = spec.is_encoder && tokenizer.joins_texts();
  if (head.joins_texts && spec.num_token_types == 1 && tokenizer.encode_pair("", "", kMaxAround).second > 0)
    throw std::runtime_error(model.string() + ": its tokenizer tells the two texts of a pair apart, and its model does not (type_vocab_size is 1)");
  if (spec.is_encoder) head.rows = Pooling::kFirst;
  if (is_gguf(model)) {
    read_gguf_pooling(model, head);
    return head;
  }
  const auto [object, path] = read_config(model);
  const Fields config(object, path.string());
  read_prompts(model, head);
  if (fs::exists(model / "modules.json")) read_modules(model, spec, head);
  if (kind == ModelHead::kScores) {
    head.scores = read_scores(model, spec, config);
    const std::string rows = config.find_string("classifier_pooling").value_or("cls");
    if (rows != "cls" && rows != "mean") config.refuse("classifier_pooling", in_quotes(rows) + " is not supported; supported are cls and mean");
    if (rows == "mean") head.rows = Pooling::kMean;
  }
  if (const json::array* const words = config.find_array("classifier_from_token"); words != nullptr && head.scores.empty()) {
    std::vector<int64_t> ids;  // against, for
    for (const json::value& word : *words) {
      const TokenId id = word.is_string() ? tokenizer.token_to_id(std::string_view(word.get_string())) : -1;
      if (id < 0 || words->size() != 2) config.refuse("classifier_from_token", "must name two tokens of the vocabulary");
      ids.push_back(id);
    }
    if (!ids.empty()) head.scores = {read_word_scores(model, spec, ids[1], ids[0])};
  }
  if (const TokenId no = tokenizer.token_to_id("no"), yes = tokenizer.token_to_id("yes"); head.scores.empty() && head.writes_text && is_qwen3_reranker(model) && no >= 0 && yes >= 0)
    head.scores = {read_word_scores(model, spec, yes, no)};
  if (!head.scores.empty()) head.labels = read_labels(config, head.num_scores());
  return head;
}

}  // namespace serval
