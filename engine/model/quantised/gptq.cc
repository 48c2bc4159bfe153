// GPTQ (Frantar et al. 2022) as AutoGPTQ and GPTQModel write it: codes [k * bits / 32, n] in words along k, zero points
// [groups, n * bits / 32] in words along n, scales [groups, n], and which group each input is of.
#include "engine/model/quantised/method.h"

namespace serval {
namespace {

struct Gptq {
  int bits;
  int64_t n, k, groups;
  bool is_symmetric;
  // Zero points are stored less one, as the first tools did.
  bool is_first_version;
  std::string module;

  int zero_at(const std::vector<uint32_t>& words, int64_t group, int64_t column) const {
    const int64_t row_words = n * bits / 32;
    const auto stored = static_cast<int>(code_in(words.data() + group * row_words, 1, column, bits));
    return is_first_version ? (stored + 1) & ((1 << bits) - 1) : stored;
  }

  // Codes, scales and offsets of groups that lie one after the other.
  void read(const Checkpoint& from, bool has_offsets, MatrixParts& parts) const {
    const auto words = values_in<uint32_t>(from, module + ".qweight"), zeros = values_in<uint32_t>(from, module + ".qzeros");
    const std::vector<float> scales = numbers_in(from, module + ".scales");
    const int bias = bias_of_codes(bits);
    parts.codes.resize(static_cast<size_t>(n * k));
    parts.scales.resize(static_cast<size_t>(n * groups));
    if (has_offsets) parts.offsets.resize(parts.scales.size());
    for (int64_t i = 0; i < k; ++i)
      for (int64_t c = 0; c < n; ++c)
        parts.codes[c * k + i] = static_cast<uint8_t>(static_cast<int>(code_in(words.data() + c, n, i, bits)) - bias);
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t c = 0; c < n; ++c) {
        const float scale = scales[g * n + c];
        const int zero = zero_at(zeros, g, c);
        parts.scales[c * groups + g] = scale;
        if (has_offsets) {
          parts.offsets[c * groups + g] = static_cast<float>(bias - zero) * scale;
        } else if (zero != bias) {
          throw std::runtime_error("the tensor '" + module +
                                   ".qzeros' has other zero points than the middle, although the configuration says sym");
        }
      }
    }
  }

  // The numbers, where groups are of inputs anywhere.
  void read_numbers(const Checkpoint& from, MatrixParts& parts) const {
    MatrixParts codes;
    read(from, true, codes);
    const auto group_of = values_in<int32_t>(from, module + ".g_idx");
    parts.numbers.resize(static_cast<size_t>(n * k));
    for (int64_t i = 0; i < k; ++i) {
      if (group_of[i] < 0 || group_of[i] >= groups)
        throw std::runtime_error("the tensor '" + module + ".g_idx' names a group that there is not");
    }
    for (int64_t c = 0; c < n; ++c) {
      for (int64_t i = 0; i < k; ++i) {
        const int64_t at = c * groups + group_of[i];
        parts.numbers[c * k + i] =
            static_cast<float>(static_cast<int8_t>(codes.codes[c * k + i])) * codes.scales[at] + codes.offsets[at];
      }
    }
  }
};

}  // namespace

std::vector<StoredMatrix> find_gptq(const Checkpoint& checkpoint, const boost::json::object& config) {
  const int64_t bits = integer_in(config, "bits", 0);
  if (!format_of_bits(bits)) throw UnsupportedQuantisation(std::to_string(bits) + " bit");
  const std::string layout = string_in(config, "checkpoint_format");
  if (!layout.empty() && layout != "gptq" && layout != "gptq_v2")
    throw UnsupportedQuantisation("checkpoint_format " + layout.substr(0, 40));
  std::vector<StoredMatrix> matrices;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    const auto module = module_of(tensor, ".qweight");
    if (!module) continue;
    tensor_of(checkpoint, tensor.name, "I32", 2);
    const TensorInfo& scales = tensor_of(checkpoint, *module + ".scales", "F16 BF16 F32", 2);
    const TensorInfo& zeros = tensor_of(checkpoint, *module + ".qzeros", "I32", 2);
    Gptq gptq{.bits = static_cast<int>(bits),
              .n = tensor.shape[1],
              .k = tensor.shape[0] * 32 / bits,
              .groups = scales.shape[0],
              .is_symmetric = is_set_in(config, "sym", true),
              .is_first_version = layout != "gptq_v2",
              .module = *module};
    if (gptq.n * bits % 32 != 0 || gptq.k * bits != tensor.shape[0] * 32)
      refuse_tensor(checkpoint, tensor, "has rows or columns that are no whole words");
    if (scales.shape[1] != gptq.n || gptq.groups < 1 || gptq.groups > gptq.k)
      refuse_tensor(checkpoint, scales, "does not fit " + tensor.name);
    if (zeros.shape[0] != gptq.groups || zeros.shape[1] != gptq.n * bits / 32)
      refuse_tensor(checkpoint, zeros, "does not fit " + scales.name);
    const int64_t asked = integer_in(config, "group_size", -1);
    const int64_t group = gptq.groups == 1 ? kWholeRow : asked;
    if (gptq.groups > 1 && (asked <= 0 || asked > gptq.k || (gptq.k + asked - 1) / asked != gptq.groups))
      refuse_tensor(checkpoint, scales, "has " + std::to_string(gptq.groups) + " groups, not those of group_size " +
                                            std::to_string(asked));
    StoredMatrix matrix{.name = *module + ".weight",
                        .how = "GPTQ",
                        .shape = {gptq.n, gptq.k},
                        .format = grouped(*format_of_bits(bits), group, gptq.k, !gptq.is_symmetric || bits < 4),
                        .tensors = {tensor.name, scales.name, zeros.name},
                        .read = {}};
    if (checkpoint.find(*module + ".g_idx") != nullptr) {
      const TensorInfo& order = tensor_of(checkpoint, *module + ".g_idx", "I32", 1);
      if (order.shape[0] != gptq.k) refuse_tensor(checkpoint, order, "does not fit " + tensor.name);
      matrix.tensors.push_back(order.name);
      const auto group_of = values_in<int32_t>(checkpoint, order.name);
      for (int64_t i = 0; i < gptq.k; ++i) {
        if (group_of[i] != (gptq.groups == 1 ? 0 : i / group)) matrix.format = WeightFormat::kBF16;
      }
    }
    const MatrixFormat format = matrix.format;
    matrix.read = [gptq, format](const Checkpoint& from, int64_t, MatrixParts& parts) {
      if (format.id == WeightFormat::kBF16) return gptq.read_numbers(from, parts);
      gptq.read(from, format.has_offsets, parts);
    };
    matrices.push_back(std::move(matrix));
  }
  return matrices;
}

}  // namespace serval
