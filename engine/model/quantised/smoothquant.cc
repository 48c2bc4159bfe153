// SmoothQuant (Xiao et al. 2023) as its own tool exports OPT (Int8OPTForCausalLM; the modules are those of torch-int): codes of
// 8 bits `weight` under one scale, which is a part of `a`, as the scales of what goes in and what comes out are: in units of
// those, an output is a * (codes * input) + bias, where a bias of 8 bits has a factor `b` of its own. Norms answer in such units too.
// So weights, biases and norms are taken as they are, and there remain two factors between units: of a query times a key (qk_bmm.a)
// to a score, which queries get here, and of probabilities of 0..127 times values (pv_bmm.a) to what the layer's output
// matrix reads, which values get. Activations are not rounded.
#include "engine/model/quantised/method.h"

namespace serval {
namespace {

constexpr float kMostProbability = 127;

// By which a module's outputs are multiplied, and the tensor that says so; 1 where there is none.
struct Factor {
  std::string tensor;
  float times = 1;

  float read(const Checkpoint& from) const { return tensor.empty() ? times : times * numbers_in(from, tensor)[0]; }
};

Factor factor_of(const std::string& module) {
  const auto beside = [&](std::string_view own, const char* other) {
    return module.ends_with(own) ? module.substr(0, module.size() - own.size()) + other : std::string();
  };
  if (std::string tensor = beside(".q_proj", ".qk_bmm.a"); !tensor.empty()) return {std::move(tensor), 1};
  if (std::string tensor = beside(".v_proj", ".pv_bmm.a"); !tensor.empty()) return {std::move(tensor), kMostProbability};
  return {};
}

// One number for all of a tensor.
const std::string& check_scale(const Checkpoint& checkpoint, const std::string& name) {
  const TensorInfo& tensor = tensor_of(checkpoint, name, "F16 BF16 F32");
  if (tensor.bytes != dtype_bytes(*tensor.dtype)) refuse_tensor(checkpoint, tensor, "is not one number");
  return name;
}

}  // namespace

std::vector<StoredMatrix> find_smoothquant(const Checkpoint& checkpoint, const boost::json::object&) {
  std::vector<StoredMatrix> matrices;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    const auto module = module_of(tensor, ".a");
    if (!module || module->ends_with("_bmm")) continue;
    const TensorInfo& codes = tensor_of(checkpoint, *module + ".weight", "I8", 2);
    const int64_t n = codes.shape[0];
    const Factor factor = factor_of(*module);
    StoredMatrix matrix{.name = codes.name,
                        .how = "SmoothQuant",
                        .shape = codes.shape,
                        .format = grouped(WeightFormat::kInt8Groups, 0, codes.shape[1], false),
                        .tensors = {codes.name, check_scale(checkpoint, tensor.name)},
                        .read = [=, name = codes.name, scale = tensor.name](const Checkpoint& from, int64_t, MatrixParts& parts) {
                          parts.codes = values_in<uint8_t>(from, name);
                          parts.scales.assign(static_cast<size_t>(n), numbers_in(from, scale)[0] * factor.read(from));
                        }};
    if (!factor.tensor.empty()) matrix.tensors.push_back(check_scale(checkpoint, factor.tensor));
    matrices.push_back(std::move(matrix));
    const TensorInfo* const bias = checkpoint.find(*module + ".bias");
    if (bias == nullptr) continue;
    if (bias->dtype_name != "I8") {  // whose unit is that of the sums, which nothing changes
      if (!factor.tensor.empty()) refuse_tensor(checkpoint, *bias, "has dtype " + std::string(bias->dtype_name) + " instead of I8");
      continue;
    }
    if (bias->bytes != static_cast<size_t>(n)) refuse_tensor(checkpoint, *bias, "does not fit " + codes.name);
    const std::string scale = *module + ".b";
    matrices.push_back({.name = bias->name,
                        .how = "SmoothQuant",
                        .shape = {n},
                        .format = WeightFormat::kF32,
                        .tensors = {bias->name, check_scale(checkpoint, scale)},
                        .read = [=, name = bias->name](const Checkpoint& from, int64_t, MatrixParts& parts) {
                          const float unit = numbers_in(from, scale)[0] * factor.read(from);
                          for (const int8_t code : values_in<int8_t>(from, name)) parts.numbers.push_back(static_cast<float>(code) * unit);
                        }});
  }
  return matrices;
}

}  // namespace serval
