#include "engine/model/read_model.h"

#include <algorithm>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>

#include "engine/json/json_reader.h"
#include "engine/model/architectures/architecture.h"
#include "engine/model/gguf_model.h"
#include "engine/model/harmless_fields.h"
#include "engine/model/model_folder.h"
#include "engine/model/quantised_checkpoint.h"
#include "engine/model/safetensors.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

namespace json = boost::json;

DType read_dtype(const Fields& file, const std::filesystem::path& model_dir, const TensorNames& names) {
  const std::string_view field = file.find("dtype") != nullptr ? "dtype" : "torch_dtype";
  const std::optional<std::string> name = file.find_string(field);
  if (name == "float32") return DType::kF32;
  if (name == "float16") return DType::kF16;
  if (name == "bfloat16") return DType::kBF16;
  if (name && name != "auto") {
    file.refuse(field, in_quotes(*name) + " is not supported; supported are float32, float16, bfloat16");
  }
  const Checkpoint checkpoint(model_dir);
  const TensorInfo* embedding = checkpoint.find(names.found_in(checkpoint).embedding_tensor());
  if (embedding == nullptr || !embedding->dtype || embedding->dtype == DType::kI32) {
    file.refuse(field, "is missing and the checkpoint has no floating-point tensor " +
                           in_quotes(names.embedding_tensor()) + " to tell");
  }
  return *embedding->dtype;
}

// A row by the name of a class that has another head, "Qwen3Model"; nothing where it is none of those.
struct Headless {
  std::string row;
  ModelHead head;
};
std::optional<Headless> find_headless(std::string_view name) {
  constexpr std::pair<std::string_view, ModelHead> kClasses[] = {{"ForSequenceClassification", ModelHead::kScores},
                                                                {"ForMaskedLM", ModelHead::kNone},
                                                                {"Model", ModelHead::kNone}};
  for (const auto& [ending, head] : kClasses) {
    if (!name.ends_with(ending)) continue;
    const std::string_view family = name.substr(0, name.size() - ending.size());
    for (const char* class_name : {"ForCausalLM", "LMHeadModel", "Model"}) {
      const std::string row_name = std::string(family) + class_name;
      const auto fits = [&](const Architecture* row) {
        return row->name == row_name && row->is_encoder == (class_name == std::string_view("Model")) && (row->is_encoder || ending != "ForMaskedLM");
      };
      if (std::ranges::any_of(architectures(), fits)) return Headless{row_name, head};
    }
  }
  return std::nullopt;
}

// "architectures" names one; tools that convert or fine-tune leave it out, null or empty: then model_type
// says which.
const Architecture& read_architecture(const Fields& file, ModelHead& head) {
  const auto row = [&](const Architecture& (*find)(std::string_view), std::string_view name) -> const auto& {
    try {
      return find(name);
    } catch (const std::runtime_error& unknown) {
      throw std::runtime_error(file.file() + ": " + unknown.what());
    }
  };
  const json::value* names = file.find("architectures");
  const std::optional<std::string> type = file.find_string("model_type");
  if (names == nullptr || (names->is_array() && names->get_array().empty())) {
    if (!type)
      file.refuse("architectures", "names no architecture, and there is no model_type to tell it by");
    const Architecture& found = row(find_architecture_of_type, *type);
    if (found.is_encoder) head = ModelHead::kNone;
    return found;
  }
  if (!names->is_array() || names->get_array().size() != 1 || !names->get_array()[0].is_string()) {
    file.refuse("architectures", "must be an array with the name of one architecture");
  }
  const std::string_view name = names->get_array()[0].get_string();
  if (const std::optional<Headless> other = find_headless(name)) {
    head = other->head;
    return row(find_architecture, other->row);
  }
  return row(find_architecture, name);
}

// Saved without the head: the prefix that goes with it is missing too.
bool lacks_head(const std::filesystem::path& model_dir, const TensorNames& names) {
  if (is_gguf(model_dir) || !has_safetensors(model_dir)) return false;
  const Checkpoint checkpoint(model_dir);
  const TensorNames found = names.found_in(checkpoint);
  return found.embedding != names.embedding && found.head == names.head && checkpoint.find(names.head_tensor()) == nullptr;
}

// As mlx-lm has the matrices of all experts.
constexpr StoredName kMlxExperts[] = {{"mlp.experts.*.gate_proj", "mlp.switch_mlp.gate_proj"},
                                      {"mlp.experts.*.up_proj", "mlp.switch_mlp.up_proj"},
                                      {"mlp.experts.*.down_proj", "mlp.switch_mlp.down_proj"}};

// Of scores, read where they are computed.
constexpr std::string_view kScoreTensors[] = {"score."};

}  // namespace

ModelHead read_model_head(const std::filesystem::path& model_dir) {
  const auto [object, path] = read_config(model_dir);
  const Fields file(object, path.string());
  ModelHead head = ModelHead::kWords;
  const Architecture& architecture = read_architecture(file, head);
  const bool is_tied = architecture.read(file).tied_embeddings;
  return head == ModelHead::kWords && !is_tied && lacks_head(model_dir, architecture.names) ? ModelHead::kNone : head;
}

ModelSpec read_model_spec(const std::filesystem::path& model_dir) {
  const auto [object, path] = read_config(model_dir);
  const Fields file(object, path.string());

  ModelHead head = ModelHead::kWords;
  const Architecture& architecture = read_architecture(file, head);
  const Quantisation quantisation = find_quantisation(object);
  check_method(path, quantisation);
  for (const std::string_view field : kQuantisationFields) file.find(field);
  ModelSpec spec = architecture.read(file);
  spec.architecture = architecture.name;
  const std::span<const StoredName> modules = spec.names.modules;
  spec.names = architecture.names;
  if (!modules.empty()) spec.names.modules = modules;
  // Nobody asks for the logits of a model without a head, which are those of its embedding.
  if (head != ModelHead::kWords || (!spec.tied_embeddings && lacks_head(model_dir, spec.names))) spec.tied_embeddings = true;
  if (head == ModelHead::kScores && spec.names.ignored.empty()) spec.names.ignored = kScoreTensors;
  for (const RopeSpec& rope : spec.ropes)
    if (!rope.longer.empty()) spec.max_positions = std::max(spec.max_positions, rope.longer.back().holds_until);
  spec.length_classes();
  spec.weight_dtype = read_dtype(file, model_dir, spec.names);
  refuse_unasked(file);
  if (const std::optional<MatrixFormat> layers = find_rounding(path, quantisation))
    spec.rounded_to = ModelSpec::Rounding{*layers, format_of(spec.weight_dtype)};
  if (is_gguf(model_dir)) adapt_to_gguf(GgufFile(model_dir), spec);
  if (quantisation.value != nullptr || is_gguf(model_dir)) {
    const QuantisedCheckpoint checkpoint(model_dir);
    for (const StoredMatrix& matrix : checkpoint.matrices()) {
      spec.stored.emplace(matrix.name, matrix.format);
      if (matrix.name.ends_with(kMlxExperts[0].stored)) spec.names.modules = kMlxExperts;
    }
    // What chooses experts has more bits than the rest.
    for (const TensorInfo& tensor : checkpoint.tensors().tensors()) {
      if (is_gguf(model_dir) && tensor.dtype == DType::kF32 && tensor.shape.size() > 1 && spec.weight_dtype != DType::kF32)
        spec.stored.emplace(tensor.name, WeightFormat::kF32);
    }
  }
  return spec;
}

}  // namespace serval
