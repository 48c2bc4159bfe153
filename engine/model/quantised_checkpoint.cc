#include "engine/model/quantised_checkpoint.h"

#include <stdexcept>
#include <string>
#include <utility>

#include "engine/json/json_reader.h"
#include "engine/model/config_fields.h"
#include "engine/model/gguf_model.h"
#include "engine/model/quantised/method.h"
#include "engine/model/quantization.h"

namespace serval {
namespace {

namespace json = boost::json;

struct Method {
  std::string_view name;  // quant_method
  FindMatrices find;
  MatrixFormat (*rounds_to)(const json::object& config) = nullptr;  // where the files have plain numbers, and there is nothing to find
};
constexpr Method kMethods[] = {
    {"gptq", find_gptq},
    {"awq", find_awq},
    {"compressed-tensors", find_compressed},
    {"fp8", find_fp8},
    {"bitsandbytes", find_bitsandbytes},
    {"hqq", find_hqq},
    {"modelopt", find_modelopt},
    {"mxfp4", find_mxfp4},
    {"mlx", find_mlx},
    {"auto-round", find_auto_round},
    {"fbgemm_fp8", find_fp8},
    {"aqlm", find_aqlm},
    {"squeezellm", find_squeezellm},
    {"any-precision", find_any_precision},
    {"qserve", find_qserve},
    {"smoothquant", find_smoothquant},
    {"quip#", find_quip_sharp},
    {"deepspeedfp", nullptr, deepspeed_format},
};

// Older tools name no method.
std::string method_of(const json::object& config) {
  const std::string name = string_in(config, "quant_method");
  if (!name.empty()) return name;
  if (config.contains("config_groups")) return "compressed-tensors";
  if (config.contains("load_in_4bit") || config.contains("load_in_8bit")) return "bitsandbytes";
  if (config.contains("parent_precision")) return "any-precision";
  if (config.contains("codesz")) return "quip#";
  if (config.contains("group_size") && config.contains("bits")) return "mlx";
  return "";
}

[[noreturn]] void refuse(const std::filesystem::path& file, const Quantisation& said, const std::string& what) {
  throw std::runtime_error(file.string() + ": " + std::string(said.field) + " says that the weights are quantised: " +
                           quantization_name(*said.value) + (what.empty() ? "" : " (" + what + ")") +
                           " weights are not supported; use the folder with the float32, float16 or bfloat16 weights "
                           "they were made from");
}

const Method* find_method(const json::value& said) {
  const std::string name = said.is_object() ? method_of(said.get_object()) : "";
  for (const Method& method : kMethods)
    if (method.name == name) return &method;
  return nullptr;
}

}  // namespace

QuantisedCheckpoint::Opened QuantisedCheckpoint::open_gguf(const std::filesystem::path& path) {
  GgufFile gguf(path);
  GgufTensors found = tensors_of_gguf(gguf);
  return {Checkpoint(gguf.take_files(), std::move(found.tensors)), std::move(found.matrices)};
}

Quantisation find_quantisation(const json::object& config) {
  for (const std::string_view field : kQuantisationFields) {
    const json::value* value = config.if_contains(field);
    if (value != nullptr && !value->is_null() && !(value->is_bool() && !value->get_bool())) return {field, value};
  }
  return {};
}

void check_method(const std::filesystem::path& file, const Quantisation& said) {
  if (said.value != nullptr && find_method(*said.value) == nullptr) refuse(file, said, "");
}

std::optional<MatrixFormat> find_rounding(const std::filesystem::path& file, const Quantisation& said) {
  if (said.value == nullptr) return std::nullopt;
  const Method& method = *find_method(*said.value);
  if (method.rounds_to == nullptr) return std::nullopt;
  try {
    return method.rounds_to(said.value->get_object());
  } catch (const UnsupportedQuantisation& what) {
    refuse(file, said, what.what());
  }
}

QuantisedCheckpoint::QuantisedCheckpoint(const std::filesystem::path& model_dir)
    : QuantisedCheckpoint(model_dir, is_gguf(model_dir) ? open_gguf(model_dir) : Opened{Checkpoint(model_dir), {}}) {}

QuantisedCheckpoint::QuantisedCheckpoint(const std::filesystem::path& model_dir, Opened opened)
    : tensors_(std::move(opened.tensors)), matrices_(std::move(opened.matrices)) {
  if (is_gguf(model_dir)) {
    tensors_.put_together(matrices_);
    return;
  }
  const std::filesystem::path file = model_dir / "config.json";
  if (!std::filesystem::exists(file)) return;
  const json::object config = read_json_file(file, kMaxConfigBytes);
  const Quantisation said = find_quantisation(config);
  if (said.value == nullptr) return;
  check_method(file, said);
  const Method& method = *find_method(*said.value);
  if (method.find == nullptr) return;
  try {
    matrices_ = method.find(tensors_, said.value->get_object());
  } catch (const UnsupportedQuantisation& what) {
    refuse(file, said, what.what());
  }
  if (matrices_.empty())
    throw std::runtime_error(file.string() + ": " + std::string(said.field) + " says that the weights are quantised (" +
                             quantization_name(*said.value) + "), and the checkpoint has none that are");
  tensors_.put_together(matrices_);
}

}  // namespace serval
