// compressed-tensors, as LLM Compressor writes it: packed integers of 4 and 8 bits, and matrices of bytes (int8, E4M3).
// Weights alone: whether activations are rounded too is the settings' to say.
#include "engine/model/quantised/method.h"

#include <limits>

namespace serval {
namespace {

namespace json = boost::json;

// weight_packed [n, words of a row], codes and zero points plus half their range; scales [n, groups].
struct Packed {
  int bits;
  int64_t n, k, groups;
  bool has_packed_zeros = false;
  std::string module;

  void read(const Checkpoint& from, bool has_offsets, MatrixParts& parts) const {
    const auto words = values_in<uint32_t>(from, module + ".weight_packed");
    const int64_t row_words = static_cast<int64_t>(words.size()) / n;
    const int bias = 1 << (bits - 1), per_word = 32 / bits;
    parts.scales = numbers_in(from, module + ".weight_scale");
    parts.codes.resize(static_cast<size_t>(n * k));
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t i = 0; i < k; ++i) {
        const uint32_t word = words[r * row_words + i / per_word];
        parts.codes[r * k + i] =
            static_cast<uint8_t>(static_cast<int>(word >> i % per_word * bits & ((1u << bits) - 1)) - bias);
      }
    }
    if (!has_offsets) return;
    parts.offsets.resize(parts.scales.size());
    const std::string name = module + ".weight_zero_point";
    const auto packed = has_packed_zeros ? values_in<uint32_t>(from, name) : std::vector<uint32_t>();
    const auto plain = has_packed_zeros ? std::vector<int8_t>() : values_in<int8_t>(from, name);
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t at = r * groups + g;
        const int zero = has_packed_zeros
                             ? static_cast<int>(packed[r / per_word * groups + g] >> r % per_word * bits & ((1u << bits) - 1)) - bias
                             : plain[at];
        parts.offsets[at] = -static_cast<float>(zero) * parts.scales[at];
      }
    }
  }

  void read_numbers(const Checkpoint& from, bool has_offsets, MatrixParts& parts) const {
    MatrixParts codes;
    read(from, has_offsets, codes);
    const auto group_of = values_in<int32_t>(from, module + ".weight_g_idx");
    parts.numbers.resize(codes.codes.size());
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t i = 0; i < k; ++i) {
        if (group_of[i] < 0 || group_of[i] >= groups)
          throw std::runtime_error("the tensor '" + module + ".weight_g_idx' names a group that there is not");
        const int64_t at = r * groups + group_of[i];
        parts.numbers[r * k + i] = static_cast<float>(static_cast<int8_t>(codes.codes[r * k + i])) * codes.scales[at] +
                                   (has_offsets ? codes.offsets[at] : 0);
      }
    }
  }
};

StoredMatrix packed_matrix(const Checkpoint& checkpoint, const TensorInfo& tensor, const std::string& module) {
  tensor_of(checkpoint, tensor.name, "I32", 2);
  const TensorInfo& scales = tensor_of(checkpoint, module + ".weight_scale", "F16 BF16 F32", 2);
  const TensorInfo& shape = tensor_of(checkpoint, module + ".weight_shape", "I64 I32", 1);
  if (shape.shape[0] != 2) refuse_tensor(checkpoint, shape, "is no shape of a matrix");
  int64_t dims[2];
  if (shape.dtype_name == "I64") {
    checkpoint.read(shape, dims);
  } else {
    const auto small = values_in<int32_t>(checkpoint, shape.name);
    dims[0] = small[0];
    dims[1] = small[1];
  }
  Packed packed{.bits = 0, .n = tensor.shape[0], .k = dims[1], .groups = scales.shape[1], .module = module};
  for (const int bits : {4, 8}) {
    if (packed.k > 0 && tensor.shape[1] == (packed.k + 32 / bits - 1) / (32 / bits)) packed.bits = bits;
  }
  if (dims[0] != packed.n || packed.bits == 0 || dims[1] > int64_t{1} << 31)
    refuse_tensor(checkpoint, tensor, "does not fit " + shape.name + ", or is not of 4 or 8 bits");
  if (scales.shape[0] != packed.n || packed.groups < 1 || packed.k % packed.groups != 0)
    refuse_tensor(checkpoint, scales, "does not fit " + tensor.name);
  std::vector<std::string> tensors = {tensor.name, scales.name, shape.name};
  const std::string zeros = module + ".weight_zero_point", order = module + ".weight_g_idx";
  const bool has_offsets = checkpoint.find(zeros) != nullptr, has_order = checkpoint.find(order) != nullptr;
  if (has_offsets) {
    const TensorInfo& zero = tensor_of(checkpoint, zeros, "I32 I8", 2);
    packed.has_packed_zeros = zero.dtype_name == "I32";
    const int64_t rows = packed.has_packed_zeros ? (packed.n + 32 / packed.bits - 1) / (32 / packed.bits) : packed.n;
    if (zero.shape[0] != rows || zero.shape[1] != packed.groups) refuse_tensor(checkpoint, zero, "does not fit " + scales.name);
    tensors.push_back(zeros);
  }
  if (has_order) {
    if (tensor_of(checkpoint, order, "I32", 1).shape[0] != packed.k)
      refuse_tensor(checkpoint, *checkpoint.find(order), "does not fit " + tensor.name);
    tensors.push_back(order);
  }
  const int64_t group = packed.groups == 1 ? kWholeRow : packed.k / packed.groups;
  if (!has_order && packed.bits == 4 && group > 0 && group % 8 != 0)
    refuse_tensor(checkpoint, scales, "has groups of " + std::to_string(group) + " inputs");
  const MatrixFormat format =
      has_order ? MatrixFormat(WeightFormat::kBF16) : grouped(*format_of_bits(packed.bits), group, packed.k, has_offsets);
  return {.name = module + ".weight",
          .how = "compressed-tensors",
          .shape = {packed.n, packed.k},
          .format = format,
          .tensors = std::move(tensors),
          .read = [=](const Checkpoint& from, int64_t, MatrixParts& parts) {
            if (has_order) return packed.read_numbers(from, has_offsets, parts);
            packed.read(from, has_offsets, parts);
          }};
}

// A matrix of which two of four neighbours are there: `compressed` [n, k / 2], their values, and `bitmask` [n, k / 8], a bit for
// each place, the first in the lowest. Bytes have one scale, or one a row.
StoredMatrix sparse_matrix(const Checkpoint& checkpoint, const TensorInfo& mask, const std::string& module) {
  const TensorInfo& values = tensor_of(checkpoint, module + ".compressed", "F32 F16 BF16 F8_E4M3 I8", 2);
  const TensorInfo& shape = tensor_of(checkpoint, module + ".shape", "I64");
  int64_t dims[2] = {};
  if (shape.bytes != sizeof dims) refuse_tensor(checkpoint, shape, "is no shape of a matrix");
  checkpoint.read(shape, dims);
  const int64_t n = values.shape[0], k = 2 * values.shape[1], mask_bytes = (k + 7) / 8;
  if (tensor_of(checkpoint, mask.name, "U8", 2).shape != std::vector<int64_t>{n, mask_bytes} || dims[0] != n || dims[1] != k)
    refuse_tensor(checkpoint, mask, "does not fit " + values.name + " and " + shape.name);
  const bool has_codes = values.dtype_name == "I8" || values.dtype_name == "F8_E4M3", is_float = values.dtype_name == "F8_E4M3";
  StoredMatrix matrix{.name = module + ".weight",
                      .how = "compressed-tensors",
                      .shape = {n, k},
                      .format = values.dtype_name == "F32" ? WeightFormat::kF32 : WeightFormat::kBF16,
                      .tensors = {values.name, mask.name, shape.name},
                      .read = {}};
  const std::string scale = module + ".weight_scale";
  int64_t num_scales = 0;
  if (has_codes) {
    matrix.format = grouped(is_float ? WeightFormat::kFp8 : WeightFormat::kInt8Groups, kWholeRow, k, false);
    matrix.tensors.push_back(scale);
    const TensorInfo& scales = tensor_of(checkpoint, scale, "F32 F16 BF16");
    num_scales = 1;
    for (const int64_t dim : scales.shape) num_scales *= dim;
    if (num_scales != 1 && num_scales != n) refuse_tensor(checkpoint, scales, "does not fit " + values.name);
  }
  matrix.read = [=, mask_name = mask.name, value_name = values.name](const Checkpoint& from, int64_t, MatrixParts& parts) {
    const auto bits = values_in<uint8_t>(from, mask_name);
    const std::vector<uint8_t> codes = has_codes ? values_in<uint8_t>(from, value_name) : std::vector<uint8_t>();
    const std::vector<float> numbers = has_codes ? std::vector<float>() : numbers_in(from, value_name);
    parts.codes.resize(has_codes ? n * k : 0);
    parts.numbers.resize(has_codes ? 0 : n * k);
    for (int64_t r = 0; r < n; ++r) {
      int64_t next = r * (k / 2);
      for (int64_t i = 0; i < k; ++i) {
        if ((bits[r * mask_bytes + i / 8] >> i % 8 & 1) == 0) continue;
        if (next == (r + 1) * (k / 2)) throw std::runtime_error("the tensor '" + mask_name + "' has more places in a row than there are values");
        if (has_codes) {
          parts.codes[r * k + i] = codes[next++];
        } else {
          parts.numbers[r * k + i] = numbers[next++];
        }
      }
      if (next != (r + 1) * (k / 2)) throw std::runtime_error("the tensor '" + mask_name + "' has fewer places in a row than there are values");
    }
    if (!has_codes) return;
    parts.scales = spread_scales(numbers_in(from, scale), 1, num_scales == 1 ? n : 1, n, 1);
    for (int64_t i = 0; i < n * k && is_float; ++i)  // a row with a code that is not a number is none
      if ((parts.codes[i] & 0x7f) == 0x7f) parts.scales[i / k] = std::numeric_limits<float>::quiet_NaN();
  };
  return matrix;
}

// The first block_structure of the groups of modules: [rows, columns].
std::pair<int64_t, int64_t> block_of(const json::object& config) {
  const json::value* groups = config.if_contains("config_groups");
  if (groups != nullptr && groups->is_object()) {
    for (const auto& [name, group] : groups->get_object()) {
      const json::value* weights = group.is_object() ? group.get_object().if_contains("weights") : nullptr;
      const json::value* block = weights != nullptr && weights->is_object() ? weights->get_object().if_contains("block_structure") : nullptr;
      if (block != nullptr && block->is_array() && block->get_array().size() == 2 && block->get_array()[0].is_int64() &&
          block->get_array()[1].is_int64())
        return {block->get_array()[0].get_int64(), block->get_array()[1].get_int64()};
    }
  }
  return {128, 128};
}

}  // namespace

std::vector<StoredMatrix> find_compressed(const Checkpoint& checkpoint, const json::object& config) {
  if (const json::value* sparsity = config.if_contains("sparsity_config"); sparsity != nullptr && sparsity->is_object()) {
    const std::string format = string_in(sparsity->get_object(), "format");
    if (!format.empty() && format != "dense" && format != "sparse-24-bitmask") throw UnsupportedQuantisation("sparse, " + format.substr(0, 40));
  }
  const auto [block_rows, block_columns] = block_of(config);
  if (block_rows <= 0 || block_columns <= 0 || block_rows > kLargestBlock || block_columns > kLargestBlock)
    throw UnsupportedQuantisation("blocks of " + std::to_string(block_rows) + " by " + std::to_string(block_columns));
  std::vector<StoredMatrix> matrices;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    if (const auto module = module_of(tensor, ".weight_packed")) {
      const std::string global = *module + ".weight_global_scale";
      const auto use = checkpoint.find(global) != nullptr ? GlobalScale::kDivides : GlobalScale::kNone;
      matrices.push_back(tensor.dtype_name == "U8"
                             ? e2m1_matrix(checkpoint, tensor, *module + ".weight", *module + ".weight_scale", "compressed-tensors", global, use)
                             : packed_matrix(checkpoint, tensor, *module));
      if (const std::string input = *module + ".input_global_scale"; checkpoint.find(input) != nullptr)
        matrices.back().tensors.push_back(input);  // of activations, which stay as they are
      continue;
    }
    if (const auto module = module_of(tensor, ".bitmask")) {
      matrices.push_back(sparse_matrix(checkpoint, tensor, *module));
      continue;
    }
    if (tensor.dtype_name != "I8" && tensor.dtype_name != "F8_E4M3") continue;
    const auto module = module_of(tensor, ".weight");
    if (!module) continue;
    matrices.push_back(scaled_matrix(checkpoint, tensor, *module + ".weight_scale", "compressed-tensors", block_rows, block_columns));
    if (checkpoint.find(*module + ".weight_zero_point") != nullptr) throw UnsupportedQuantisation("8 bit with zero points");
    // Of activations, which stay as they are.
    for (const char* scale : {".input_scale", ".input_zero_point"})
      if (checkpoint.find(*module + scale) != nullptr) matrices.back().tensors.push_back(*module + scale);
  }
  return matrices;
}

}  // namespace serval
