// Any-Precision (Park et al. 2024) as its tools write it: planes of one bit of all codes, the highest first, and for each width a
// table of numbers for each output. The widest is read, or that of "precision", which is no word of the tools'. qweight [bits, n, k / 32]: a row's bytes, each of eight
// neighbours from its highest bit on, lie as warps of 32 threads read them, whose words have bytes that are 32 apart,
// the last first; what is left of a row has warps of fewer threads. No kernel has a table for each row: plain numbers are
// read.
#include "engine/model/quantised/method.h"

#include <algorithm>

namespace serval {
namespace {

// Where byte `j` of a row of so many lies.
int64_t place_of(int64_t j, int64_t row_bytes) {
  constexpr int64_t kWarp = 128;
  const int64_t begin = j / kWarp * kWarp, threads = std::min(kWarp, row_bytes - begin) / 4, in = j - begin;
  return begin + in % threads * 4 + (3 - in / threads);
}

}  // namespace

std::vector<StoredMatrix> find_any_precision(const Checkpoint& checkpoint, const boost::json::object& config) {
  const int64_t bits = integer_in(config, "parent_precision", 0);
  if (bits < 2 || bits > 8) throw UnsupportedQuantisation(std::to_string(bits) + " bit");
  const int64_t width = integer_in(config, "precision", bits);
  if (width < 1 || width > bits) throw UnsupportedQuantisation("precision " + std::to_string(width) + " of " + std::to_string(bits) + " bit");
  std::vector<StoredMatrix> matrices;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    const auto module = module_of(tensor, ".qweight");
    if (!module) continue;
    tensor_of(checkpoint, tensor.name, "I32", 3);
    const TensorInfo& tables = tensor_of(checkpoint, *module + ".lut" + std::to_string(width), "F16 BF16 F32", 2);
    const int64_t n = tensor.shape[1], k = tensor.shape[2] * 32;
    if (tensor.shape[0] != bits) refuse_tensor(checkpoint, tensor, "has not " + std::to_string(bits) + " planes");
    if (tables.shape != std::vector<int64_t>{n, int64_t{1} << width}) refuse_tensor(checkpoint, tables, "does not fit " + tensor.name);
    StoredMatrix matrix{.name = *module + ".weight",
                        .how = "Any-Precision",
                        .shape = {n, k},
                        .format = WeightFormat::kBF16,
                        .tensors = {tensor.name},
                        .read = [=, codes = tensor.name, numbers = tables.name](const Checkpoint& from, int64_t, MatrixParts& parts) {
                          const auto planes = values_in<uint8_t>(from, codes);
                          const std::vector<float> table = numbers_in(from, numbers);
                          parts.numbers.resize(static_cast<size_t>(n * k));
                          for (int64_t r = 0; r < n; ++r) {
                            for (int64_t i = 0; i < k; ++i) {
                              const int64_t at = r * k / 8 + place_of(i / 8, k / 8);
                              uint32_t code = 0;
                              for (int64_t b = 0; b < width; ++b) code = code << 1 | (planes[b * n * k / 8 + at] >> (7 - i % 8) & 1);
                              parts.numbers[r * k + i] = table[(r << width) + code];
                            }
                          }
                        }};
    for (int64_t other = 1; other <= 8; ++other) {
      const std::string name = *module + ".lut" + std::to_string(other);
      if (checkpoint.find(name) != nullptr) matrix.tensors.push_back(name);
    }
    matrices.push_back(std::move(matrix));
  }
  return matrices;
}

}  // namespace serval
