#include "engine/model/quantised/method.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/model/float_convert.h"
#include "kernels/base/check.h"
#include "kernels/base/shown.h"
#include "kernels/float_bits.h"

namespace serval {

namespace json = boost::json;

int64_t integer_in(const json::object& config, std::string_view name, int64_t fallback) {
  const json::value* value = config.if_contains(name);
  return value != nullptr && value->is_int64() ? value->get_int64() : fallback;
}

bool is_set_in(const json::object& config, std::string_view name, bool fallback) {
  const json::value* value = config.if_contains(name);
  return value != nullptr && value->is_bool() ? value->get_bool() : fallback;
}

std::string string_in(const json::object& config, std::string_view name) {
  const json::value* value = config.if_contains(name);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

void refuse_tensor(const Checkpoint& checkpoint, const TensorInfo& tensor, const std::string& why) {
  throw std::runtime_error(checkpoint.file_of(tensor).string() + ": tensor " + in_quotes(tensor.name) + " " + why);
}

const TensorInfo& tensor_of(const Checkpoint& checkpoint, const std::string& name, std::string_view types, size_t rank) {
  const TensorInfo* tensor = checkpoint.find(name);
  if (tensor == nullptr) throw std::runtime_error("the checkpoint lacks the tensor " + in_quotes(name));
  const size_t at = types.find(tensor->dtype_name);
  const bool is_type = at != types.npos && (at + tensor->dtype_name.size() == types.size() ||
                                            types[at + tensor->dtype_name.size()] == ' ');
  if (!is_type)
    refuse_tensor(checkpoint, *tensor, "has dtype " + std::string(tensor->dtype_name) + " instead of " + std::string(types));
  if (rank > 0 && tensor->shape.size() != rank)
    refuse_tensor(checkpoint, *tensor, "has " + std::to_string(tensor->shape.size()) + " dimensions instead of " +
                                           std::to_string(rank));
  return *tensor;
}

const TensorInfo& tensor_or_part(const Checkpoint& checkpoint, const std::string& name) {
  const TensorInfo* tensor = checkpoint.find_part(name);
  if (tensor == nullptr) tensor = checkpoint.find(name);
  if (tensor == nullptr) throw std::runtime_error("the checkpoint lacks the tensor " + in_quotes(name));
  return *tensor;
}

std::vector<float> numbers_in(const Checkpoint& checkpoint, const std::string& name, int64_t first, int64_t count) {
  const TensorInfo& tensor = tensor_or_part(checkpoint, name);
  std::vector<float> numbers(static_cast<size_t>(count));
  if (tensor.dtype && *tensor.dtype != DType::kI32) {
    const auto size = static_cast<int64_t>(dtype_bytes(*tensor.dtype));
    const auto bytes = values_in<std::byte>(checkpoint, name, first * size, count * size);
    convert(bytes.data(), *tensor.dtype, numbers.data(), DType::kF32, numbers.size());
    return numbers;
  }
  const bool is_power = tensor.dtype_name == "F8_E8M0" || tensor.dtype_name == "U8";
  if (!is_power && tensor.dtype_name != "F8_E4M3")
    refuse_tensor(checkpoint, tensor, "has dtype " + std::string(tensor.dtype_name) + ", which are no scales");
  const auto codes = values_in<uint8_t>(checkpoint, name, first, count);
  for (size_t i = 0; i < codes.size(); ++i) numbers[i] = is_power ? std::ldexp(1.0f, codes[i] - 127) : fp8_to_float(codes[i]);
  return numbers;
}

std::vector<float> numbers_in(const Checkpoint& checkpoint, const std::string& name) {
  const TensorInfo& tensor = tensor_or_part(checkpoint, name);
  return numbers_in(checkpoint, name, 0, static_cast<int64_t>(tensor.bytes / (tensor.dtype ? dtype_bytes(*tensor.dtype) : 1)));
}

std::optional<WeightFormat> format_of_bits(int64_t bits) {
  if (bits == 8) return WeightFormat::kInt8Groups;
  if (bits >= 2 && bits <= 4) return WeightFormat::kInt4;
  return std::nullopt;
}

MatrixFormat grouped(WeightFormat format, int64_t group, int64_t k, bool has_offsets) {
  if (group <= 0 || group >= k) return {format, kWholeRow, has_offsets};
  if (group % format_row(format).together != 0) return WeightFormat::kBF16;
  return {format, group, has_offsets};
}

std::optional<std::string> module_of(const TensorInfo& tensor, std::string_view ending) {
  if (!tensor.name.ends_with(ending)) return std::nullopt;
  return tensor.name.substr(0, tensor.name.size() - ending.size());
}

std::vector<float> spread_scales(const std::vector<float>& scales, int64_t columns, int64_t block_rows, int64_t n,
                                 int64_t groups) {
  std::vector<float> spread(static_cast<size_t>(n * groups));
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t g = 0; g < groups; ++g)
      spread[r * groups + g] = scales[r / block_rows * columns + (columns == 1 ? 0 : g)];
  }
  return spread;
}

std::vector<uint8_t> low_nibbles_first(const std::vector<uint8_t>& bytes) {
  std::vector<uint8_t> codes(bytes.size() * 2);
  for (size_t i = 0; i < bytes.size(); ++i) {
    codes[2 * i] = bytes[i] & 15;
    codes[2 * i + 1] = bytes[i] >> 4;
  }
  return codes;
}

void spread_nan(const std::vector<uint8_t>& codes, int64_t k, int64_t group, std::vector<float>& scales) {
  const int64_t groups = (k + group - 1) / group;
  for (int64_t i = 0; i < static_cast<int64_t>(codes.size()); ++i) {
    if ((codes[i] & 0x7f) == 0x7f) scales[i / k * groups + i % k / group] = std::numeric_limits<float>::quiet_NaN();
  }
}

StoredMatrix e2m1_matrix(const Checkpoint& checkpoint, const TensorInfo& codes, const std::string& name, const std::string& scales,
                         std::string_view how, const std::string& global, GlobalScale use) {
  tensor_of(checkpoint, codes.name, "U8 I8", 2);
  const TensorInfo& scale = tensor_of(checkpoint, scales, "F8_E4M3 F8_E8M0 U8", 2);
  const int64_t n = codes.shape[0], k = codes.shape[1] * 2, groups = scale.shape[1];
  if (scale.shape[0] != n || groups < 1 || k % groups != 0 || (groups > 1 && k / groups % 8 != 0))
    refuse_tensor(checkpoint, scale, "does not fit " + codes.name);
  StoredMatrix matrix{.name = name,
                      .how = how,
                      .shape = {n, k},
                      .format = grouped(WeightFormat::kTable4, k / groups, k, false),
                      .tensors = {codes.name, scales},
                      .read = {}};
  if (use != GlobalScale::kNone) {
    const TensorInfo& one = tensor_of(checkpoint, global, "F32");
    if (one.bytes != sizeof(float)) refuse_tensor(checkpoint, one, "is not one number");
    matrix.tensors.push_back(global);
  }
  matrix.read = [=, packed = codes.name](const Checkpoint& from, int64_t, MatrixParts& parts) {
    parts.table = kE2M1;
    parts.codes = low_nibbles_first(values_in<uint8_t>(from, packed));
    parts.scales = numbers_in(from, scales);
    if (use == GlobalScale::kNone) return;
    const float all = numbers_in(from, global)[0];
    for (float& value : parts.scales) value = use == GlobalScale::kDivides ? value / all : value * all;
  };
  return matrix;
}

StoredMatrix scaled_matrix(const Checkpoint& checkpoint, const TensorInfo& codes, const std::string& scales,
                           std::string_view how, int64_t block_rows, int64_t block_columns) {
  if (codes.shape.size() != 2) refuse_tensor(checkpoint, codes, "is no matrix");
  const int64_t n = codes.shape[0], k = codes.shape[1];
  const bool is_float = codes.dtype_name == "F8_E4M3";
  const TensorInfo& scale = tensor_of(checkpoint, scales, "F32 F16 BF16 F8_E8M0");
  std::vector<int64_t> dims = scale.shape;
  int64_t num_scales = 1;
  for (const int64_t dim : dims) num_scales *= dim;
  const int64_t columns = dims.size() == 2 ? dims[1] : 1;
  int64_t rows_of_scale = 1, group = kWholeRow;
  const auto is_shape = [&](int64_t rows_in, int64_t columns_in) {
    return num_scales == rows_in * columns_in && columns == columns_in;
  };
  const auto blocks = [](int64_t size, int64_t block) { return (size + block - 1) / block; };
  if (num_scales == 1) {
    rows_of_scale = n;
  } else if (!is_shape(n, 1)) {
    if (block_columns > 0 && is_shape(blocks(n, block_rows), blocks(k, block_columns))) {
      rows_of_scale = block_rows;
      group = block_columns;
    } else if (columns > 1 && dims[0] == n && k % columns == 0) {
      group = k / columns;
    } else {
      refuse_tensor(checkpoint, scale, "has a shape that does not fit its matrix of " + std::to_string(n) + " by " +
                                           std::to_string(k));
    }
  }
  StoredMatrix matrix{.name = codes.name,
                      .how = how,
                      .shape = {n, k},
                      .format = grouped(is_float ? WeightFormat::kFp8 : WeightFormat::kInt8Groups, group, k, false),
                      .tensors = {codes.name, scales},
                      .read = {}};
  const int64_t groups = num_groups(matrix.format, k), size = groups == 1 ? k : group;
  matrix.read = [=, name = codes.name](const Checkpoint& from, int64_t, MatrixParts& parts) {
    parts.codes = values_in<uint8_t>(from, name);
    parts.scales = spread_scales(numbers_in(from, scales), columns, rows_of_scale, n, groups);
    if (is_float) spread_nan(parts.codes, k, size, parts.scales);
  };
  return matrix;
}

}  // namespace serval
