// AQLM (Egiazarian et al. 2024) as its library writes it: a block of out_group_size rows and in_group_size columns is the sum
// of one vector from each codebook, times the scale of its rows. codes [n / rows, k / columns, codebooks], codebooks
// [codebooks, 2^bits, rows, columns], scales [n / rows, 1, 1, 1]. No kernel has such codes: plain numbers are read.
#include "engine/model/quantised/method.h"

#include <algorithm>

namespace serval {
namespace {

struct Aqlm {
  int64_t bits, num_books, block_rows, block_columns, row_blocks, column_blocks;
  std::string module;

  int64_t k() const { return column_blocks * block_columns; }

  template <class Code>
  void read(const Checkpoint& from, MatrixParts& parts) const {
    const auto codes = values_in<Code>(from, module + ".codes");
    const std::vector<float> books = numbers_in(from, module + ".codebooks"), scales = numbers_in(from, module + ".scales");
    const int64_t size = block_rows * block_columns, book = size << bits;
    const auto mask = static_cast<uint32_t>((uint64_t{1} << bits) - 1);
    parts.numbers.resize(static_cast<size_t>(row_blocks * column_blocks * size));
    std::vector<float> block(static_cast<size_t>(size));
    for (int64_t r = 0; r < row_blocks; ++r) {
      for (int64_t c = 0; c < column_blocks; ++c) {
        std::fill(block.begin(), block.end(), 0.0f);
        for (int64_t b = 0; b < num_books; ++b) {
          const float* const vector = books.data() + b * book + (codes[(r * column_blocks + c) * num_books + b] & mask) * size;
          for (int64_t i = 0; i < size; ++i) block[i] += vector[i];
        }
        for (int64_t i = 0; i < size; ++i)
          parts.numbers[(r * block_rows + i / block_columns) * k() + c * block_columns + i % block_columns] = block[i] * scales[r];
      }
    }
  }
};

}  // namespace

std::vector<StoredMatrix> find_aqlm(const Checkpoint& checkpoint, const boost::json::object& config) {
  const int64_t bits = integer_in(config, "nbits_per_codebook", 16);
  if (bits < 1 || bits > 16) throw UnsupportedQuantisation("codebooks of " + std::to_string(bits) + " bit");
  std::vector<StoredMatrix> matrices;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    const auto module = module_of(tensor, ".codes");
    if (!module) continue;
    const TensorInfo& codes = tensor_of(checkpoint, tensor.name, bits <= 8 ? "I8 U8" : "I16 U16", 3);
    const TensorInfo& books = tensor_of(checkpoint, *module + ".codebooks", "F16 BF16 F32", 4);
    const TensorInfo& scales = tensor_of(checkpoint, *module + ".scales", "F16 BF16 F32", 4);
    const Aqlm aqlm{.bits = bits,
                    .num_books = books.shape[0],
                    .block_rows = books.shape[2],
                    .block_columns = books.shape[3],
                    .row_blocks = codes.shape[0],
                    .column_blocks = codes.shape[1],
                    .module = *module};
    if (books.shape[1] != int64_t{1} << bits || aqlm.num_books < 1 || codes.shape[2] != aqlm.num_books)
      refuse_tensor(checkpoint, books, "does not fit " + codes.name + " and codebooks of " + std::to_string(bits) + " bit");
    if (scales.shape != std::vector<int64_t>{aqlm.row_blocks, 1, 1, 1}) refuse_tensor(checkpoint, scales, "does not fit " + codes.name);
    // No larger than 2^31 on a side; the numbers of a block are no more than a codebook has.
    constexpr int64_t kMost = int64_t{1} << 16;
    if (aqlm.block_rows < 1 || aqlm.block_columns < 1 || aqlm.block_rows > kMost || aqlm.block_columns > kMost)
      refuse_tensor(checkpoint, books, "has blocks of no usable size");
    matrices.push_back({.name = *module + ".weight",
                        .how = "AQLM",
                        .shape = {aqlm.row_blocks * aqlm.block_rows, aqlm.k()},
                        .format = WeightFormat::kBF16,
                        .tensors = {codes.name, books.name, scales.name},
                        .read = [aqlm](const Checkpoint& from, int64_t, MatrixParts& parts) {
                          return aqlm.bits <= 8 ? aqlm.read<uint8_t>(from, parts) : aqlm.read<uint16_t>(from, parts);
                        }});
  }
  return matrices;
}

}  // namespace serval
