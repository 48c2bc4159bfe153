// AWQ (Lin et al. 2023) as AutoAWQ writes it, "gemm": codes [k, n / 8] and zero points [groups, n / 8] of 4 bits, eight
// columns a word in an order of their own, scales [groups, n].
#include "engine/model/quantised/method.h"

namespace serval {
namespace {

// Which of eight columns lies at each place of a word, from the lowest bits on.
constexpr int kColumn[8] = {0, 2, 4, 6, 1, 3, 5, 7};

// [rows, words * 8] codes.
std::vector<uint8_t> unpacked(const std::vector<uint32_t>& words) {
  std::vector<uint8_t> codes(words.size() * 8);
  for (size_t w = 0; w < words.size(); ++w)
    for (int place = 0; place < 8; ++place) codes[w * 8 + kColumn[place]] = words[w] >> 4 * place & 15;
  return codes;
}

}  // namespace

std::vector<StoredMatrix> find_awq(const Checkpoint& checkpoint, const boost::json::object& config) {
  const int64_t bits = integer_in(config, "bits", integer_in(config, "w_bit", 4));
  if (bits != 4) throw UnsupportedQuantisation(std::to_string(bits) + " bit");
  const std::string version = string_in(config, "version");
  if (!version.empty() && version != "gemm" && version != "GEMM")
    throw UnsupportedQuantisation("version " + version.substr(0, 40));
  std::vector<StoredMatrix> matrices;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    const auto module = module_of(tensor, ".qweight");
    if (!module) continue;
    tensor_of(checkpoint, tensor.name, "I32", 2);
    const TensorInfo& scales = tensor_of(checkpoint, *module + ".scales", "F16 BF16 F32", 2);
    const TensorInfo& zeros = tensor_of(checkpoint, *module + ".qzeros", "I32", 2);
    const int64_t k = tensor.shape[0], n = tensor.shape[1] * 8, groups = scales.shape[0];
    if (scales.shape[1] != n || groups < 1 || k % groups != 0)
      refuse_tensor(checkpoint, scales, "does not fit " + tensor.name);
    if (zeros.shape[0] != groups || zeros.shape[1] * 8 != n) refuse_tensor(checkpoint, zeros, "does not fit " + scales.name);
    const int64_t group = groups == 1 ? kWholeRow : k / groups;
    if (group > 0 && group % 8 != 0) refuse_tensor(checkpoint, scales, "has groups of " + std::to_string(group) + " inputs");
    matrices.push_back({.name = *module + ".weight",
                        .how = "AWQ",
                        .shape = {n, k},
                        .format = grouped(WeightFormat::kInt4, group, k, true),
                        .tensors = {tensor.name, scales.name, zeros.name},
                        .read = [=, module = *module](const Checkpoint& from, int64_t, MatrixParts& parts) {
                          const auto codes = unpacked(values_in<uint32_t>(from, module + ".qweight"));
                          const auto zero = unpacked(values_in<uint32_t>(from, module + ".qzeros"));
                          const std::vector<float> scale = numbers_in(from, module + ".scales");
                          parts.codes.resize(codes.size());
                          parts.scales.resize(scale.size());
                          parts.offsets.resize(scale.size());
                          for (int64_t i = 0; i < k; ++i)
                            for (int64_t c = 0; c < n; ++c) parts.codes[c * k + i] = static_cast<uint8_t>(codes[i * n + c] - 8);
                          for (int64_t g = 0; g < groups; ++g) {
                            for (int64_t c = 0; c < n; ++c) {
                              parts.scales[c * groups + g] = scale[g * n + c];
                              parts.offsets[c * groups + g] = static_cast<float>(8 - zero[g * n + c]) * scale[g * n + c];
                            }
                          }
                        }});
  }
  return matrices;
}

}  // namespace serval
