#include "engine/model/read_model.h"

#include <algorithm>
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
  const std::optional<std::string> type = file.find_string("model_type");
  if (names == nullptr || (names->is_array() && names->get_array().empty())) {
    if (!type)
      file.refuse("architectures", "names no architecture, and there is no model_type to tell it by");
    return row(find_architecture_of_type, *type);
  }
  if (!names->is_array() || names->get_array().size() != 1 || !names->get_array()[0].is_string()) {
    file.refuse("architectures", "must be an array with the name of one architecture");
  }
  return row(find_architecture, names->get_array()[0].get_string());
}

}  // namespace

ModelSpec read_model_spec(const std::filesystem::path& model_dir) {
  const auto [object, path] = read_config(model_dir);
  const Fields file(object, path.string());

  const Architecture& architecture = read_architecture(file);
  const Quantisation quantisation = find_quantisation(object);
  check_method(path, quantisation);
  for (const char* field : {"quantization_config", "compression_config"}) file.find(field);
  ModelSpec spec = architecture.read(file);
  spec.architecture = architecture.name;
  const std::span<const StoredName> modules = spec.names.modules;
  spec.names = architecture.names;
  if (!modules.empty()) spec.names.modules = modules;
  for (const RopeSpec& rope : spec.ropes)
    if (!rope.longer.empty()) spec.max_positions = std::max(spec.max_positions, rope.longer.back().holds_until);
  spec.length_classes();
  spec.weight_dtype = read_dtype(file, model_dir, spec.names);
  refuse_unasked(file);
  if (is_gguf(model_dir)) adapt_to_gguf(GgufFile(model_dir), spec);
  if (quantisation.value != nullptr || is_gguf(model_dir)) {
    const QuantisedCheckpoint checkpoint(model_dir);
    for (const StoredMatrix& matrix : checkpoint.matrices()) spec.stored.emplace(matrix.name, matrix.format);
    // What chooses experts has more bits than the rest.
    for (const TensorInfo& tensor : checkpoint.tensors().tensors()) {
      if (is_gguf(model_dir) && tensor.dtype == DType::kF32 && tensor.shape.size() > 1 && spec.weight_dtype != DType::kF32)
        spec.stored.emplace(tensor.name, WeightFormat::kF32);
    }
  }
  return spec;
}

}  // namespace serval
