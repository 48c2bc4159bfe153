// E4M3 with scales of blocks (DeepSeek V3, Qwen3) or of whole matrices: "weight" beside "weight_scale_inv", which in
// spite of its name is multiplied with, "weight_scale" or, in DeepSeek V4, "scale". That has E2M1 too: two a byte, with a
// power of two for every so many.
#include "engine/model/quantised/method.h"

namespace serval {

std::vector<StoredMatrix> find_fp8(const Checkpoint& checkpoint, const boost::json::object& config) {
  int64_t block_rows = 128, block_columns = 128;
  const boost::json::value* block = config.if_contains("weight_block_size");
  if (block != nullptr && block->is_array() && block->get_array().size() == 2 && block->get_array()[0].is_int64() &&
      block->get_array()[1].is_int64()) {
    block_rows = block->get_array()[0].get_int64();
    block_columns = block->get_array()[1].get_int64();
  }
  if (block_rows <= 0 || block_columns <= 0 || block_rows > kLargestBlock || block_columns > kLargestBlock)
    throw UnsupportedQuantisation("blocks of " + std::to_string(block_rows) + " by " + std::to_string(block_columns));
  std::vector<StoredMatrix> matrices;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    const auto module = module_of(tensor, ".weight");
    if (!module) continue;
    const auto has = [&](const char* scale) { return checkpoint.find(*module + scale) != nullptr; };
    if (tensor.dtype_name == "I8" && has(".scale")) {
      matrices.push_back(e2m1_matrix(checkpoint, tensor, tensor.name, *module + ".scale", "FP4", "", GlobalScale::kNone));
      continue;
    }
    if (tensor.dtype_name != "F8_E4M3") continue;
    const char* const scale = has(".weight_scale_inv") ? ".weight_scale_inv" : has(".scale") ? ".scale" : ".weight_scale";
    matrices.push_back(scaled_matrix(checkpoint, tensor, *module + scale, "FP8", block_rows, block_columns));
    // Of activations, which stay as they are.
    for (const char* unused : {".input_scale", ".activation_scale", ".input_scale_ub"})
      if (has(unused)) matrices.back().tensors.push_back(*module + unused);
  }
  return matrices;
}

}  // namespace serval
