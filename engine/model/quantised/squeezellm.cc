// SqueezeLLM (Kim et al. 2023) as its tools write it: codes of 3 and 4 bits [k * bits / 32, n] in words along k, and for each
// output a table of the numbers that they stand for. Beside those, outliers that are added: few of them anywhere, as rows
// of a sparse matrix (rows [n + 1], cols, vals), and whole outputs (full_rows [k, outputs], full_row_indices). No kernel
// has a table for each row: plain numbers are read.
#include "engine/model/quantised/method.h"

namespace serval {
namespace {

struct Squeezed {
  int bits;
  int64_t n, k;
  bool is_sparse, has_full_rows;
  std::string module;

  [[noreturn]] void refuse(const char* tensor) const {
    throw std::runtime_error("the tensor '" + module + tensor + "' names a place that there is not");
  }

  void read(const Checkpoint& from, MatrixParts& parts) const {
    const auto words = values_in<uint32_t>(from, module + ".qweight");
    const std::vector<float> tables = numbers_in(from, module + ".lookup_table");
    std::vector<float>& numbers = parts.numbers;
    numbers.resize(static_cast<size_t>(n * k));
    for (int64_t i = 0; i < k; ++i)
      for (int64_t r = 0; r < n; ++r) numbers[r * k + i] = tables[(r << bits) + code_in(words.data() + r, n, i, bits)];
    if (is_sparse) {
      const auto rows = values_in<int32_t>(from, module + ".rows"), columns = values_in<int32_t>(from, module + ".cols");
      const std::vector<float> values = numbers_in(from, module + ".vals");
      if (rows[0] != 0 || rows[n] != static_cast<int32_t>(values.size())) refuse(".rows");
      for (int64_t r = 0; r < n; ++r) {
        if (rows[r] > rows[r + 1] || rows[r] < 0) refuse(".rows");
        for (int32_t at = rows[r]; at < rows[r + 1]; ++at) {
          if (at >= static_cast<int32_t>(values.size())) refuse(".rows");
          if (columns[at] < 0 || columns[at] >= k) refuse(".cols");
          numbers[r * k + columns[at]] += values[at];
        }
      }
    }
    if (has_full_rows) {
      const auto outputs = values_in<int32_t>(from, module + ".full_row_indices");
      const std::vector<float> values = numbers_in(from, module + ".full_rows");
      for (size_t j = 0; j < outputs.size(); ++j) {
        if (outputs[j] < 0 || outputs[j] >= n) refuse(".full_row_indices");
        for (int64_t i = 0; i < k; ++i) numbers[outputs[j] * k + i] += values[i * outputs.size() + j];
      }
    }
  }
};

}  // namespace

std::vector<StoredMatrix> find_squeezellm(const Checkpoint& checkpoint, const boost::json::object& config) {
  const int64_t bits = integer_in(config, "wbits", integer_in(config, "bits", 4));
  if (bits != 3 && bits != 4) throw UnsupportedQuantisation(std::to_string(bits) + " bit");
  std::vector<StoredMatrix> matrices;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    const auto module = module_of(tensor, ".qweight");
    if (!module) continue;
    tensor_of(checkpoint, tensor.name, "I32", 2);
    const TensorInfo& tables = tensor_of(checkpoint, *module + ".lookup_table", "F16 BF16 F32", 2);
    Squeezed squeezed{.bits = static_cast<int>(bits),
                      .n = tensor.shape[1],
                      .k = tensor.shape[0] * 32 / bits,
                      .is_sparse = checkpoint.find(*module + ".vals") != nullptr,
                      .has_full_rows = checkpoint.find(*module + ".full_rows") != nullptr,
                      .module = *module};
    if (squeezed.k * bits != tensor.shape[0] * 32) refuse_tensor(checkpoint, tensor, "has columns that are no whole words");
    if (tables.shape != std::vector<int64_t>{squeezed.n, int64_t{1} << bits}) refuse_tensor(checkpoint, tables, "does not fit " + tensor.name);
    StoredMatrix matrix{.name = *module + ".weight",
                        .how = "SqueezeLLM",
                        .shape = {squeezed.n, squeezed.k},
                        .format = WeightFormat::kBF16,
                        .tensors = {tensor.name, tables.name},
                        .read = [squeezed](const Checkpoint& from, int64_t, MatrixParts& parts) { squeezed.read(from, parts); }};
    const auto part = [&](const char* ending, std::string_view types, std::vector<int64_t> shape) {
      const TensorInfo& found = tensor_of(checkpoint, *module + ending, types, shape.size());
      if (found.shape != shape) refuse_tensor(checkpoint, found, "does not fit " + tensor.name);
      matrix.tensors.push_back(found.name);
    };
    if (squeezed.is_sparse) {
      const TensorInfo& values = tensor_of(checkpoint, *module + ".vals", "F16 BF16 F32", 1);
      matrix.tensors.push_back(values.name);
      part(".rows", "I32", {squeezed.n + 1});
      part(".cols", "I32", values.shape);
      // How the tools' kernel shares the work.
      if (checkpoint.find(*module + ".startrows") != nullptr) matrix.tensors.push_back(*module + ".startrows");
    }
    if (squeezed.has_full_rows) {
      const TensorInfo& outputs = tensor_of(checkpoint, *module + ".full_row_indices", "I32", 1);
      matrix.tensors.push_back(outputs.name);
      part(".full_rows", "F16 BF16 F32", {squeezed.k, outputs.shape[0]});
    }
    matrices.push_back(std::move(matrix));
  }
  return matrices;
}

}  // namespace serval
