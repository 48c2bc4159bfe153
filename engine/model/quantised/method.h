// What the readers of quantisation methods share: each finds the matrices that its tools wrote, by the names, shapes
// and types of their tensors. Private to engine/model.
#pragma once

#include <boost/json/object.hpp>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/safetensors.h"
#include "engine/model/stored_matrix.h"

namespace serval {

// What a method is not read for: what the configuration says, in words ("3 bit").
struct UnsupportedQuantisation : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// All quantised matrices of the checkpoint. `config`: the method's object. Throws std::runtime_error with a sentence, or
// UnsupportedQuantisation.
using FindMatrices = std::vector<StoredMatrix> (*)(const Checkpoint& checkpoint, const boost::json::object& config);

std::vector<StoredMatrix> find_gptq(const Checkpoint& checkpoint, const boost::json::object& config);
std::vector<StoredMatrix> find_awq(const Checkpoint& checkpoint, const boost::json::object& config);
std::vector<StoredMatrix> find_compressed(const Checkpoint& checkpoint, const boost::json::object& config);
std::vector<StoredMatrix> find_fp8(const Checkpoint& checkpoint, const boost::json::object& config);
std::vector<StoredMatrix> find_bitsandbytes(const Checkpoint& checkpoint, const boost::json::object& config);
std::vector<StoredMatrix> find_modelopt(const Checkpoint& checkpoint, const boost::json::object& config);
std::vector<StoredMatrix> find_hqq(const Checkpoint& checkpoint, const boost::json::object& config);
std::vector<StoredMatrix> find_mxfp4(const Checkpoint& checkpoint, const boost::json::object& config);
std::vector<StoredMatrix> find_mlx(const Checkpoint& checkpoint, const boost::json::object& config);
std::vector<StoredMatrix> find_auto_round(const Checkpoint& checkpoint, const boost::json::object& config);
std::vector<StoredMatrix> find_aqlm(const Checkpoint& checkpoint, const boost::json::object& config);
std::vector<StoredMatrix> find_squeezellm(const Checkpoint& checkpoint, const boost::json::object& config);
std::vector<StoredMatrix> find_any_precision(const Checkpoint& checkpoint, const boost::json::object& config);
std::vector<StoredMatrix> find_qserve(const Checkpoint& checkpoint, const boost::json::object& config);
std::vector<StoredMatrix> find_quip_sharp(const Checkpoint& checkpoint, const boost::json::object& config);
std::vector<StoredMatrix> find_smoothquant(const Checkpoint& checkpoint, const boost::json::object& config);

// What DeepSpeed's engine rounds plain numbers to. Throws UnsupportedQuantisation.
MatrixFormat deepspeed_format(const boost::json::object& config);

// The number that the configuration has under the name; the fallback where it has none.
int64_t integer_in(const boost::json::object& config, std::string_view name, int64_t fallback);
bool is_set_in(const boost::json::object& config, std::string_view name, bool fallback = false);
std::string string_in(const boost::json::object& config, std::string_view name);

// The tensor, which must be there, of one of these types ("I32 U32") and of so many dimensions (0: any).
const TensorInfo& tensor_of(const Checkpoint& checkpoint, const std::string& name, std::string_view types, size_t rank = 0);
[[noreturn]] void refuse_tensor(const Checkpoint& checkpoint, const TensorInfo& tensor, const std::string& why);

// The tensor of that name, whether it stands alone or is a part of a matrix.
const TensorInfo& tensor_or_part(const Checkpoint& checkpoint, const std::string& name);

// A tensor's bytes; or those of `count` elements of T, from one on.
template <class T>
std::vector<T> values_in(const Checkpoint& checkpoint, const std::string& name, int64_t first, int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  checkpoint.read(tensor_or_part(checkpoint, name), static_cast<size_t>(first) * sizeof(T), values.size() * sizeof(T), values.data());
  return values;
}
template <class T>
std::vector<T> values_in(const Checkpoint& checkpoint, const std::string& name) {
  return values_in<T>(checkpoint, name, 0, static_cast<int64_t>(tensor_or_part(checkpoint, name).bytes / sizeof(T)));
}
// As numbers: of F32, F16, BF16, F8_E4M3 or F8_E8M0; all of them, or so many from one on.
std::vector<float> numbers_in(const Checkpoint& checkpoint, const std::string& name);
std::vector<float> numbers_in(const Checkpoint& checkpoint, const std::string& name, int64_t first, int64_t count);

// Numbers of `bits` bits, one after the other in words of 32 from the lowest bit on; the words lie `stride` apart.
inline uint32_t code_in(const uint32_t* words, int64_t stride, int64_t index, int bits) {
  const int64_t bit = index * bits;
  const int shift = static_cast<int>(bit % 32);
  uint64_t word = words[bit / 32 * stride] >> shift;
  if (shift + bits > 32) word |= static_cast<uint64_t>(words[(bit / 32 + 1) * stride]) << (32 - shift);
  return static_cast<uint32_t>(word) & ((1u << bits) - 1);
}

// Whether a width of codes has a format, which must have groups: 2, 3, 4 and 8 bits. What is in it of codes without a
// sign: they less `bias_of_codes`.
std::optional<WeightFormat> format_of_bits(int64_t bits);
inline int bias_of_codes(int64_t bits) {
  return bits < 4 ? 0 : 1 << (bits - 1);
}

// A format whose groups the kernels can have; kBF16 where they cannot, and the reader makes numbers of it.
MatrixFormat grouped(WeightFormat format, int64_t group, int64_t k, bool has_offsets);

// "a.b" for "a.b.qweight" and ".qweight"; nothing where the name ends otherwise.
std::optional<std::string> module_of(const TensorInfo& tensor, std::string_view ending);

inline constexpr int64_t kLargestBlock = int64_t{1} << 20;

// Scales [rows, columns] of blocks of block_rows by block_columns, which may be the whole matrix's or its rows', spread
// over [n, groups].
std::vector<float> spread_scales(const std::vector<float>& scales, int64_t columns, int64_t block_rows, int64_t n,
                                 int64_t groups);

// The numbers of E2M1 (OCP Microscaling Formats 1.0).
inline constexpr std::array<float, kTableSize> kE2M1 = {0,     0.5f,  1,  1.5f,  2,  3,  4,  6,
                                                        -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
// Where a code of E4M3 [n, k] is not a number, the scale of its group of so many is none, which comes to the same for the output.
void spread_nan(const std::vector<uint8_t>& codes, int64_t k, int64_t group, std::vector<float>& scales);
// [n, 2 * bytes of a row] codes of 4 bits, the first of a byte in its low bits.
std::vector<uint8_t> low_nibbles_first(const std::vector<uint8_t>& bytes);

// A matrix of E2M1, two a byte, under the name `name`: `codes` [n, k / 2], with the tensor `scales` [n, groups] of E4M3
// or of powers of two, and one number for all, `global`, where there is one: they are divided by it, or multiplied.
enum class GlobalScale : uint8_t { kNone, kDivides, kMultiplies };
StoredMatrix e2m1_matrix(const Checkpoint& checkpoint, const TensorInfo& codes, const std::string& name, const std::string& scales,
                         std::string_view how, const std::string& global, GlobalScale use);

// A matrix of codes of a byte each, `name` (E4M3 or int8), with the scales `scales` of whatever shape stands beside it: one,
// one a row, one a row and group, or of blocks.
StoredMatrix scaled_matrix(const Checkpoint& checkpoint, const TensorInfo& codes, const std::string& scales,
                           std::string_view how, int64_t block_rows, int64_t block_columns);

}  // namespace serval
