// QServe (Lin et al. 2024) as its converter writes it: codes of 4 bits without a sign [n, k / 2], in the order of its kernel's
// tiles. By row (group_size -1): a weight is code * s1_scales - s1_szeros. By group: codes of 8 bits are made of those,
// code * s2_scales + s2_zeros [k / group, n], and a weight is such a code times s1_scales; of 32 rows, those that are 8
// apart are neighbours there. Activations stay as they are.
#include "engine/model/quantised/method.h"

namespace serval {
namespace {

struct QServe {
  int64_t n, k, groups;
  bool has_groups;
  std::string module;

  void read(const Checkpoint& from, MatrixParts& parts) const {
    const auto bytes = values_in<uint8_t>(from, module + ".qweight");
    parts.codes.resize(static_cast<size_t>(n * k));
    // A tile is of 32 rows and 32 columns: a byte has rows 16 apart, and tiles lie along k.
    for (size_t at = 0; at < bytes.size(); ++at) {
      const auto in = static_cast<int64_t>(at % 512), tile = static_cast<int64_t>(at / 512);
      const int64_t row = tile / (k / 32) * 32 + in / 4 % 2 * 8 + in / 64;
      const int64_t column = tile % (k / 32) * 32 + in / 8 % 2 * 16 + in / 16 % 4 * 4 + in % 4;
      parts.codes[row * k + column] = static_cast<uint8_t>((bytes[at] & 15) - 8);
      parts.codes[(row + 16) * k + column] = static_cast<uint8_t>((bytes[at] >> 4) - 8);
    }
    const std::vector<float> rows = numbers_in(from, module + ".s1_scales");
    if (!has_groups) {
      parts.scales = rows;
      parts.offsets = numbers_in(from, module + ".s1_szeros");
      for (int64_t r = 0; r < n; ++r) parts.offsets[r] = 8 * rows[r] - parts.offsets[r];
      return;
    }
    const auto scales = values_in<int8_t>(from, module + ".s2_scales"), zeros = values_in<int8_t>(from, module + ".s2_zeros");
    parts.scales.resize(static_cast<size_t>(n * groups));
    parts.offsets.resize(parts.scales.size());
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t at = g * n + r / 32 * 32 + r % 8 * 4 + r % 32 / 8;
        parts.scales[r * groups + g] = static_cast<float>(scales[at]) * rows[r];
        parts.offsets[r * groups + g] = static_cast<float>(8 * scales[at] + zeros[at]) * rows[r];
      }
    }
  }
};

}  // namespace

std::vector<StoredMatrix> find_qserve(const Checkpoint& checkpoint, const boost::json::object&) {
  std::vector<StoredMatrix> matrices;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    const auto module = module_of(tensor, ".s1_scales");
    if (!module) continue;
    const TensorInfo& codes = tensor_of(checkpoint, *module + ".qweight", "I8 U8", 2);
    QServe qserve{.n = codes.shape[0],
                  .k = codes.shape[1] * 2,
                  .groups = 1,
                  .has_groups = checkpoint.find(*module + ".s2_scales") != nullptr,
                  .module = *module};
    if (qserve.n % 32 != 0 || qserve.k % 32 != 0 || qserve.k == 0) refuse_tensor(checkpoint, codes, "has sizes that are no whole tiles of 32 by 32");
    StoredMatrix matrix{.name = *module + ".weight",
                        .how = "QServe",
                        .shape = {qserve.n, qserve.k},
                        .format = WeightFormat::kBF16,
                        .tensors = {codes.name},
                        .read = {}};
    const auto part = [&](const char* ending, std::string_view types, const std::vector<int64_t>& shape) {
      const TensorInfo& found = tensor_of(checkpoint, *module + ending, types);
      if (found.shape != shape) refuse_tensor(checkpoint, found, "does not fit " + codes.name);
      matrix.tensors.push_back(found.name);
    };
    part(".s1_scales", "F16 BF16 F32", {qserve.n});
    if (qserve.has_groups) {
      const TensorInfo& scales = tensor_of(checkpoint, *module + ".s2_scales", "I8", 2);
      qserve.groups = scales.shape[0];
      if (qserve.groups < 1 || qserve.k % qserve.groups != 0 || qserve.k / qserve.groups % 8 != 0)
        refuse_tensor(checkpoint, scales, "does not fit " + codes.name);
      part(".s2_scales", "I8", {qserve.groups, qserve.n});
      part(".s2_zeros", "I8", {qserve.groups, qserve.n});
    } else {
      part(".s1_szeros", "F16 BF16 F32", {qserve.n});
    }
    matrix.format = grouped(WeightFormat::kInt4, qserve.k / qserve.groups, qserve.k, true);
    matrix.read = [qserve](const Checkpoint& from, int64_t, MatrixParts& parts) { qserve.read(from, parts); };
    matrices.push_back(std::move(matrix));
  }
  return matrices;
}

}  // namespace serval
