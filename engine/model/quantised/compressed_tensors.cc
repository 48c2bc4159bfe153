// compressed-tensors, as LLM Compressor writes it: packed integers of 4 and 8 bits, and matrices of bytes (int8, E4M3).
// Weights alone: where the configuration has activations rounded too, they are not.
#include "engine/model/quantised/method.h"

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
    if (!format.empty() && format != "dense") throw UnsupportedQuantisation("sparse, " + format.substr(0, 40));
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
