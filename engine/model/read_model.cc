#include "engine/model/read_model.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <string_view>

#include "engine/json/json_reader.h"
#include "engine/model/architectures/architecture.h"
#include "engine/model/harmless_fields.h"
#include "engine/model/quantization.h"
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

ModelSpec read_model_spec(const std::filesystem::path& model_dir) {
  const std::filesystem::path path = model_dir / "config.json";
  const json::object object = read_json_file(path, kMaxConfigBytes);
  const Fields file(object, path.string());

  const Architecture& architecture = read_architecture(file);
  refuse_quantised(file);
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
  return spec;
}

}  // namespace serval
