// MXFP4 (OCP Microscaling Formats 1.0) as gpt-oss has its experts: blocks [experts, n, k / 32, 16] of two E2M1 a byte, the
// first in the low bits, and scales [experts, n, k / 32], powers of two.
#include "engine/model/quantised/method.h"

namespace serval {

std::vector<StoredMatrix> find_mxfp4(const Checkpoint& checkpoint, const boost::json::object&) {
  std::vector<StoredMatrix> matrices;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    const auto module = module_of(tensor, "_blocks");
    if (!module) continue;
    tensor_of(checkpoint, tensor.name, "U8", 4);
    const TensorInfo& scales = tensor_of(checkpoint, *module + "_scales", "U8", 3);
    const int64_t n = tensor.shape[1], groups = tensor.shape[2], k = groups * 32;
    if (tensor.shape[3] != 16 || scales.shape[0] != tensor.shape[0] || scales.shape[1] != n || scales.shape[2] != groups)
      refuse_tensor(checkpoint, scales, "does not fit " + tensor.name);
    matrices.push_back({.name = *module,
                        .how = "MXFP4",
                        .shape = {tensor.shape[0], n, k},
                        .format = grouped(WeightFormat::kTable4, 32, k, false),
                        .tensors = {tensor.name, scales.name},
                        .read = [=, module = *module](const Checkpoint& from, int64_t index, MatrixParts& parts) {
                          const auto blocks = values_in<uint8_t>(from, module + "_blocks", index * n * k / 2, n * k / 2);
                          parts.scales = numbers_in(from, module + "_scales", index * n * groups, n * groups);
                          parts.table = kE2M1;
                          parts.codes = low_nibbles_first(blocks);
                        }});
  }
  return matrices;
}

}  // namespace serval
