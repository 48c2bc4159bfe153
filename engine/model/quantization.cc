#include "engine/model/quantization.h"

#include <algorithm>
#include <boost/json.hpp>
#include <optional>
#include <string_view>

#include "kernels/base/shown.h"

namespace serval {
namespace {

namespace json = boost::json;

constexpr int kMaxNesting = 6;

// The first member of one of these names, the object's own before those of objects inside it: tools nest what
// they say of the weights under groups and modules.
const json::value* find_nested(const json::value& value, std::initializer_list<std::string_view> names,
                               int nesting = 0) {
  const json::object* object = value.if_object();
  if (object == nullptr || nesting == kMaxNesting) return nullptr;
  for (const std::string_view name : names) {
    const json::value* found = object->if_contains(name);
    if (found != nullptr && (found->is_string() || found->is_number())) return found;
  }
  for (const auto& [key, inner] : *object) {
    if (key == "input_activations" || key == "output_activations") continue;  // not about weights
    if (const json::value* found = find_nested(inner, names, nesting + 1)) return found;
  }
  return nullptr;
}

bool is_set(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(name);
  return value != nullptr && value->is_bool() && value->get_bool();
}

// As people write the name.
std::string spelled(std::string_view method) {
  constexpr std::pair<std::string_view, std::string_view> kSpellings[] = {
      {"awq", "AWQ"}, {"gptq", "GPTQ"}, {"fp8", "FP8"}, {"mxfp4", "MXFP4"}, {"hqq", "HQQ"}, {"aqlm", "AQLM"},
      {"squeezellm", "SqueezeLLM"}, {"qserve", "QServe"}, {"smoothquant", "SmoothQuant"}, {"auto-round", "AutoRound"}, {"fbgemm_fp8", "FBGEMM FP8"}};
  for (const auto& [name, spelling] : kSpellings) {
    if (method == name) return std::string(spelling);
  }
  return shown(method, 40);
}

std::string method_of(const json::value& config, const json::object& object) {
  if (const json::value* method = find_nested(config, {"quant_method", "quant_algo", "quant_type"});
      method != nullptr && method->is_string()) {
    return spelled(method->get_string());
  }
  if (object.contains("config_groups")) return "compressed-tensors";
  if (object.contains("load_in_4bit") || object.contains("load_in_8bit")) return "bitsandbytes";
  if (object.contains("parent_precision")) return "Any-Precision";
  if (object.contains("codesz")) return "QuIP#";
  if (object.contains("group_size") && object.contains("bits")) return "MLX";
  return "";
}

}  // namespace

std::string quantization_name(const json::value& config) {
  const json::object* object = config.if_object();
  if (object == nullptr) return config.is_string() ? spelled(config.get_string()) : "quantised";
  std::string name = method_of(config, *object);
  std::string width;
  if (is_set(*object, "load_in_4bit")) {
    width = "4 bit";
  } else if (is_set(*object, "load_in_8bit")) {
    width = "8 bit";
  } else if (const json::value* bits = find_nested(config, {"bits", "num_bits", "nbits", "w_bit"});
             bits != nullptr && bits->is_int64()) {
    width = shown(json::serialize(*bits), 8) + " bit";
    if (const json::value* type = find_nested(config, {"type"});
        type != nullptr && type->is_string() && type->get_string() == "float") {
      width += " float";
    }
  }
  if (name.empty()) return width.empty() ? "quantised" : width;
  return width.empty() ? name : name + ", " + width;
}

}  // namespace serval
