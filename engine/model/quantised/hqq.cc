// HQQ (Badri and Shaji 2023) as its library and transformers write it: codes of 1, 2, 3, 4 and 8 bits without a sign, a
// weight being (code - zero) * scale. The matrix's numbers, row after row, are cut into groups: axis 1 [numbers / group,
// group], whose rows are groups; axis 0 [group, numbers / group], whose columns are. Of the rows of that, several are put
// into a word: the first so many, each step apart, from the highest bits on.
#include "engine/model/quantised/method.h"

namespace serval {
namespace {

struct Hqq {
  int bits, per_word;
  int64_t n, k, group, rows, columns;  // of the cut matrix
  bool along_rows;                     // axis 1
  bool has_kernels;                    // for its groups; else numbers are read
  std::string module;

  // Codes in the matrix's order.
  std::vector<uint8_t> codes(const Checkpoint& from) const {
    const int64_t step = (rows + per_word - 1) / per_word;
    const auto unpack = [&](const auto& words) {
      std::vector<uint8_t> codes(static_cast<size_t>(n * k));
      for (int64_t r = 0; r < rows; ++r) {
        const int shift = static_cast<int>(per_word - 1 - r / step) * bits;
        for (int64_t c = 0; c < columns; ++c)
          codes[r * columns + c] = static_cast<uint8_t>(words[r % step * columns + c] >> shift & ((1u << bits) - 1));
      }
      return codes;
    };
    return bits == 3 ? unpack(values_in<uint32_t>(from, module + ".W_q")) : unpack(values_in<uint8_t>(from, module + ".W_q"));
  }

  void read(const Checkpoint& from, MatrixParts& parts) const {
    parts.codes = codes(from);
    parts.scales = numbers_in(from, module + ".scale");
    const std::vector<float> zeros = numbers_in(from, module + ".zero");
    const int bias = bias_of_codes(bits);
    if (!has_kernels) {
      parts.numbers.resize(parts.codes.size());
      for (size_t i = 0; i < parts.numbers.size(); ++i) {
        const size_t g = along_rows ? i / columns : i % columns;
        parts.numbers[i] = (static_cast<float>(parts.codes[i]) - zeros[g]) * parts.scales[g];
      }
      parts.codes.clear();
      parts.scales.clear();
      return;
    }
    for (uint8_t& code : parts.codes) code = static_cast<uint8_t>(code - bias);
    parts.offsets.resize(zeros.size());
    for (size_t g = 0; g < zeros.size(); ++g) parts.offsets[g] = (static_cast<float>(bias) - zeros[g]) * parts.scales[g];
  }
};

// A number of one element: bytes are flags.
int64_t number_in(const Checkpoint& checkpoint, const std::string& name) {
  const TensorInfo& tensor = tensor_of(checkpoint, name, "I32 U8");
  if (tensor.bytes != (tensor.dtype_name == "I32" ? sizeof(int32_t) : 1)) refuse_tensor(checkpoint, tensor, "is no number");
  return tensor.dtype_name == "I32" ? values_in<int32_t>(checkpoint, name)[0] : values_in<uint8_t>(checkpoint, name)[0];
}

StoredMatrix hqq_matrix(const Checkpoint& checkpoint, const TensorInfo& tensor, const std::string& module) {
  const TensorInfo& shape = tensor_of(checkpoint, module + ".shape", "I64", 1);
  int64_t dims[2] = {};
  if (shape.bytes != sizeof dims) refuse_tensor(checkpoint, shape, "is no shape of a matrix");
  checkpoint.read(shape, dims);
  constexpr int64_t kMost = int64_t{1} << 31;
  if (dims[0] < 1 || dims[1] < 1 || dims[0] > kMost || dims[1] > kMost) refuse_tensor(checkpoint, shape, "is no shape of a matrix");
  for (const char* flag : {".quant_scale", ".quant_zero", ".view_as_float"}) {
    if (checkpoint.find(module + flag) != nullptr && number_in(checkpoint, module + flag) != 0)
      throw UnsupportedQuantisation(std::string(flag + 1) + " set");
  }
  const int64_t bits = number_in(checkpoint, module + ".nbits"), axis = number_in(checkpoint, module + ".axis");
  if ((bits != 1 && bits != 2 && bits != 3 && bits != 4 && bits != 8) || (axis != 0 && axis != 1))
    throw UnsupportedQuantisation(std::to_string(bits) + " bit, axis " + std::to_string(axis));
  const TensorInfo& scale = tensor_of(checkpoint, module + ".scale", "F32 F16 BF16", 2);
  const TensorInfo& zero = tensor_of(checkpoint, module + ".zero", "F32 F16 BF16", 2);
  Hqq hqq{.bits = static_cast<int>(bits),
          .per_word = bits == 3 ? 10 : static_cast<int>(8 / bits),
          .n = dims[0],
          .k = dims[1],
          .group = 0,
          .rows = 0,
          .columns = 0,
          .along_rows = axis == 1,
          .has_kernels = false,
          .module = module};
  const int64_t groups = scale.shape[0] * scale.shape[1];
  if (groups < 1 || hqq.n * hqq.k % groups != 0 || scale.shape[hqq.along_rows ? 1 : 0] != 1 || zero.shape != scale.shape)
    refuse_tensor(checkpoint, scale, "does not fit " + shape.name + " and " + zero.name);
  hqq.group = hqq.n * hqq.k / groups;
  hqq.rows = hqq.along_rows ? groups : hqq.group;
  hqq.columns = hqq.along_rows ? hqq.group : groups;
  const std::vector<int64_t> words = {(hqq.rows + hqq.per_word - 1) / hqq.per_word, hqq.columns};
  if (tensor_of(checkpoint, tensor.name, bits == 3 ? "I32" : "U8", 2).shape != words || (hqq.along_rows && hqq.k % hqq.group != 0))
    refuse_tensor(checkpoint, tensor, "does not fit " + shape.name + " and " + scale.name);
  const WeightFormat codes = bits == 8 ? WeightFormat::kInt8Groups : WeightFormat::kInt4;
  hqq.has_kernels = hqq.along_rows && grouped(codes, hqq.group, hqq.k, true).id == codes;
  StoredMatrix matrix{.name = module + ".weight",
                      .how = "HQQ",
                      .shape = {hqq.n, hqq.k},
                      .format = hqq.has_kernels ? grouped(codes, hqq.group, hqq.k, true) : MatrixFormat(WeightFormat::kBF16),
                      .tensors = {},
                      .read = [hqq](const Checkpoint& from, int64_t, MatrixParts& parts) { hqq.read(from, parts); }};
  for (const TensorInfo& part : checkpoint.tensors())  // what the library says of itself too
    if (part.name.starts_with(module + ".") && part.name != module + ".bias") matrix.tensors.push_back(part.name);
  return matrix;
}

}  // namespace

std::vector<StoredMatrix> find_hqq(const Checkpoint& checkpoint, const boost::json::object&) {
  std::vector<StoredMatrix> matrices;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    if (const auto module = module_of(tensor, ".W_q")) matrices.push_back(hqq_matrix(checkpoint, tensor, *module));
  }
  return matrices;
}

}  // namespace serval
