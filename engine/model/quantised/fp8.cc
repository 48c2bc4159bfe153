// E4M3 with scales of blocks (DeepSeek V3, Qwen3) or of whole matrices: "weight" beside "weight_scale_inv", which in
// spite of its name is multiplied with, or "weight_scale".
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
    if (tensor.dtype_name != "F8_E4M3") continue;
    const auto module = module_of(tensor, ".weight");
    if (!module) continue;
    const bool is_inverse = checkpoint.find(*module + ".weight_scale_inv") != nullptr;
    matrices.push_back(scaled_matrix(checkpoint, tensor, *module + (is_inverse ? ".weight_scale_inv" : ".weight_scale"), "FP8",
                                     block_rows, block_columns));
    // Of activations, which stay as they are.
    for (const char* scale : {".input_scale", ".activation_scale"})
      if (checkpoint.find(*module + scale) != nullptr) matrices.back().tensors.push_back(*module + scale);
  }
  return matrices;
}

}  // namespace serval
