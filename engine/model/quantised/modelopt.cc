// NVIDIA's ModelOpt: E4M3 with a scale a matrix, and NVFP4, E2M1 with E4M3 scales of 16 neighbours and one number for all.
#include "engine/model/quantised/method.h"

namespace serval {

std::vector<StoredMatrix> find_modelopt(const Checkpoint& checkpoint, const boost::json::object& config) {
  const std::string algorithm = string_in(config, "quant_algo");
  if (algorithm != "FP8" && algorithm != "NVFP4") throw UnsupportedQuantisation(algorithm.substr(0, 40));
  std::vector<StoredMatrix> matrices;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    const auto module = module_of(tensor, ".weight");
    const bool is_fp8 = tensor.dtype_name == "F8_E4M3", is_fp4 = tensor.dtype_name == "U8";
    if (!module || (!is_fp8 && !is_fp4)) continue;
    const std::string scales = *module + ".weight_scale";
    matrices.push_back(is_fp8 ? scaled_matrix(checkpoint, tensor, scales, "ModelOpt", 0, 0)
                              : e2m1_matrix(checkpoint, tensor, tensor.name, scales, "ModelOpt", *module + ".weight_scale_2",
                                            GlobalScale::kMultiplies));
    // Of activations, which stay as they are.
    if (checkpoint.find(*module + ".input_scale") != nullptr) matrices.back().tensors.push_back(*module + ".input_scale");
  }
  return matrices;
}

}  // namespace serval
