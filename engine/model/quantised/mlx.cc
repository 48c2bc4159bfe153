// MLX as mlx-lm writes it: codes of 2, 3, 4, 5, 6 and 8 bits without a sign [n, k * bits / 32], one after the other in words
// of 32 from the lowest bit on, and for each group of a row a scale and what a code of zero means ("biases"): a weight is
// code * scale + bias. In the other modes codes are E2M1 or E4M3, with scales of a byte and no biases. All experts' matrices
// lie behind each other, [experts, n, ...]. Modules named in the configuration have a width, a group and a mode of their own.
#include <boost/json.hpp>
#include <cmath>

#include "engine/model/quantised/method.h"
#include "kernels/float_bits.h"

namespace serval {
namespace {

namespace json = boost::json;

struct Mode {
  std::string_view name;
  int bits;
  WeightFormat held;
  bool has_powers;  // scales of E8M0, else of E4M3
};
constexpr Mode kModes[] = {{"mxfp4", 4, WeightFormat::kTable4, true},
                           {"nvfp4", 4, WeightFormat::kTable4, false},
                           {"mxfp8", 8, WeightFormat::kFp8, true}};

// Null: affine, with integers.
const Mode* find_mode(const json::object& config) {
  const std::string name = string_in(config, "mode");
  for (const Mode& mode : kModes)
    if (mode.name == name) return &mode;
  if (!name.empty() && name != "affine") throw UnsupportedQuantisation("mode " + name.substr(0, 40));
  return nullptr;
}

struct Mlx {
  const Mode* mode;
  int bits;
  int64_t n, k, groups;
  std::string module;

  void read(const Checkpoint& from, int64_t index, MatrixParts& parts) const {
    const int64_t row_words = k * bits / 32;
    const auto words = values_in<uint32_t>(from, module + ".weight", index * n * row_words, n * row_words);
    const int bias = mode == nullptr ? bias_of_codes(bits) : 0;
    parts.codes.resize(static_cast<size_t>(n * k));
    for (int64_t r = 0; r < n; ++r)
      for (int64_t i = 0; i < k; ++i)
        parts.codes[r * k + i] = static_cast<uint8_t>(static_cast<int>(code_in(words.data() + r * row_words, 1, i, bits)) - bias);
    if (mode == nullptr) {
      parts.scales = numbers_in(from, module + ".scales", index * n * groups, n * groups);
      parts.offsets = numbers_in(from, module + ".biases", index * n * groups, n * groups);
      for (size_t g = 0; g < parts.scales.size(); ++g) parts.offsets[g] += static_cast<float>(bias) * parts.scales[g];
      return;
    }
    parts.table = kE2M1;
    const auto scales = values_in<uint8_t>(from, module + ".scales", index * n * groups, n * groups);
    for (const uint8_t scale : scales) parts.scales.push_back(mode->has_powers ? std::ldexp(1.0f, scale - 127) : fp8_to_float(scale));
    if (mode->held == WeightFormat::kFp8) spread_nan(parts.codes, k, k / groups, parts.scales);
  }
};

StoredMatrix mlx_matrix(const Checkpoint& checkpoint, const std::string& module, const json::object& config) {
  const json::value* own = config.if_contains(module);
  const json::object& said = own != nullptr && own->is_object() ? own->get_object() : config;
  const Mode* const mode = find_mode(said);
  const int64_t bits = integer_in(said, "bits", integer_in(config, "bits", 0));
  if (bits < 2 || bits > 8 || bits == 7 || (mode != nullptr && bits != mode->bits))
    throw UnsupportedQuantisation(std::to_string(bits) + " bit" + (mode == nullptr ? "" : ", mode " + std::string(mode->name)));
  const TensorInfo& codes = tensor_of(checkpoint, module + ".weight", "U32");
  const TensorInfo& scales = tensor_of(checkpoint, module + ".scales", mode == nullptr ? "F16 BF16 F32" : "U8");
  const size_t rank = codes.shape.size();
  if (rank != 2 && rank != 3) refuse_tensor(checkpoint, codes, "is no matrix");
  Mlx mlx{.mode = mode, .bits = static_cast<int>(bits), .n = codes.shape[rank - 2], .k = codes.shape[rank - 1] * 32 / bits, .groups = 0, .module = module};
  if (mlx.k * bits != codes.shape[rank - 1] * 32) refuse_tensor(checkpoint, codes, "has rows that are no whole words");
  std::vector<int64_t> rows = scales.shape, codes_rows = codes.shape;
  if (rows.size() == rank) mlx.groups = rows.back();
  rows.pop_back();
  codes_rows.pop_back();
  const int64_t group = integer_in(said, "group_size", integer_in(config, "group_size", 64));
  if (mlx.groups < 1 || rows != codes_rows || mlx.groups > mlx.k || group != mlx.k / mlx.groups || mlx.k % mlx.groups != 0 || group % 8 != 0)
    refuse_tensor(checkpoint, scales, "does not fit " + codes.name + " and groups of " + std::to_string(group));
  StoredMatrix matrix{.name = rank == 3 ? module : codes.name,
                      .how = "MLX",
                      .shape = codes.shape,
                      .format = grouped(mode != nullptr ? mode->held : bits <= 4 ? WeightFormat::kInt4 : WeightFormat::kInt8Groups,
                                        group, mlx.k, mode == nullptr),
                      .tensors = {codes.name, scales.name},
                      .read = [mlx](const Checkpoint& from, int64_t index, MatrixParts& parts) { mlx.read(from, index, parts); }};
  matrix.shape.back() = mlx.k;
  if (mode == nullptr) {
    const TensorInfo& biases = tensor_of(checkpoint, module + ".biases", "F16 BF16 F32");
    if (biases.shape != scales.shape) refuse_tensor(checkpoint, biases, "does not fit " + scales.name);
    matrix.tensors.push_back(biases.name);
  }
  return matrix;
}

}  // namespace

std::vector<StoredMatrix> find_mlx(const Checkpoint& checkpoint, const json::object& config) {
  find_mode(config);
  std::vector<StoredMatrix> matrices;
  for (const TensorInfo& tensor : checkpoint.tensors())
    if (const auto module = module_of(tensor, ".scales")) matrices.push_back(mlx_matrix(checkpoint, *module, config));
  return matrices;
}

}  // namespace serval
