// What the op cases share: numbers moved to and from a backend in the type it computes with, and the comparison with their
// definition in double. Private to the cases.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/float_bits.h"
#include "tests/kernels/op_table.h"

namespace serval::testing {

inline constexpr int kMaxRows = 160, kMaxLen = 640, kBlockSize = 16, kVocab = 501;

// Values as the device stores them, and as the reference reads them.
struct Values {
  Tensor tensor;
  std::vector<double> exact;
};

// Moves numbers to and from a backend in the type it computes with.
class Bench {
 public:
  Bench(Backend& backend, WeightFormat weights, uint32_t seed)
      : backend_(backend),
        number_(format_row(weights).number),
        type_(backend.activation_dtype(number_)),
        random_(seed) {}

  DType type() const { return type_; }      // of activations
  DType number() const { return number_; }  // of the weights, or of what they would be dequantised to
  double tolerance() const { return precision_of(type_).relative; }
  std::mt19937& random() { return random_; }

  Values numbers(std::initializer_list<int64_t> shape, DType type, float scale = 1) {
    Values values;
    int64_t count = 1;
    for (const int64_t d : shape) count *= d;
    std::normal_distribution<float> normal(0, scale);
    std::vector<std::byte> bytes(count * dtype_bytes(type));
    for (int64_t i = 0; i < count; ++i) {
      const float value = normal(random_) * (random_() % 97 == 0 ? 8 : 1);
      values.exact.push_back(store(value, type, bytes.data() + i * dtype_bytes(type)));
    }
    values.tensor = Tensor(place(bytes.size()), type, shape);
    backend_.upload(values.tensor.data, bytes.data(), bytes.size());
    return values;
  }
  Values numbers(std::initializer_list<int64_t> shape) { return numbers(shape, type_); }
  // Some of the rows of a matrix, which lie apart, as a matrix.
  Tensor rows_of(const Values& values, const std::vector<int64_t>& rows) {
    const Tensor& all = values.tensor;
    const size_t bytes = all.dim(1) * dtype_bytes(all.dtype);
    std::vector<std::byte> host(all.num_bytes()), picked(rows.size() * bytes);
    backend_.download(host.data(), all.data, host.size());
    for (size_t i = 0; i < rows.size(); ++i)
      std::memcpy(picked.data() + i * bytes, host.data() + rows[i] * bytes, bytes);
    const Tensor tensor(place(picked.size()), all.dtype, {static_cast<int64_t>(rows.size()), all.dim(1)});
    backend_.upload(tensor.data, picked.data(), picked.size());
    return tensor;
  }

  // Not-a-number until an op writes it.
  Tensor poison(std::initializer_list<int64_t> shape, DType type) {
    Tensor tensor(nullptr, type, shape);
    const std::vector<std::byte> bytes(tensor.num_bytes(), std::byte{0xff});
    tensor.data = place(bytes.size());
    backend_.upload(tensor.data, bytes.data(), bytes.size());
    return tensor;
  }

  std::vector<double> read(const Tensor& tensor) {
    std::vector<std::byte> bytes(tensor.num_bytes());
    backend_.download(bytes.data(), tensor.data, bytes.size());
    std::vector<double> values;
    for (int64_t i = 0; i < tensor.num_elements(); ++i)
      values.push_back(load(tensor.dtype, bytes.data() + i * dtype_bytes(tensor.dtype)));
    return values;
  }

  std::vector<int32_t> read_ints(const Tensor& tensor) {
    std::vector<int32_t> values(tensor.num_elements());
    backend_.download(values.data(), tensor.data, tensor.num_bytes());
    return values;
  }

  LinearWeight weight(int64_t n, int64_t k, WeightFormat format, bool has_bias, std::vector<double>& exact,
                      std::vector<double>& bias) {
    std::normal_distribution<float> normal(0, 0.2f);
    std::vector<float> drawn(n * k), scales(n);
    for (float& value : drawn) value = normal(random_);
    std::vector<std::byte> codes(code_bytes(format, n, k));
    LinearSource part{.format = format, .n = n, .k = k, .data = codes.data(), .scales = scales.data()};
    if (format_row(format).group != 0) {
      static constexpr float kTable[kTableSize] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.25f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
      part.group = format_row(format).has_groups() ? 32 : 0;
      part.table = kTable;
      scales.assign(n * num_groups(part.matrix_format(), k), 0.05f);
      part.scales = scales.data();
      if (format == WeightFormat::kTable4) {
        for (std::byte& code : codes) code = std::byte{static_cast<uint8_t>(random_() % kTableSize)};
      } else {
        quantise_groups(Tensor(drawn.data(), DType::kF32, {n, k}), part.matrix_format(), codes.data(), scales.data());
      }
      std::vector<float> row(k);
      for (int64_t r = 0; r < n; ++r) {
        dequantise_row(part, r, row.data());
        exact.insert(exact.end(), row.begin(), row.end());
      }
    } else {
      const DType type = format_row(format).number;
      for (int64_t i = 0; i < n * k; ++i)
        exact.push_back(store(drawn[i], type, codes.data() + i * dtype_bytes(type)));
    }
    std::vector<float> biases;
    for (int64_t i = 0; i < n && has_bias; ++i) biases.push_back(normal(random_));
    bias.assign(biases.begin(), biases.end());
    std::vector<uint16_t> rounded;
    if (!backend_.supports(part.format)) {  // a loader hands over what it is held as
      for (double& value : exact) {
        rounded.push_back(float_to_bf16(static_cast<float>(value)));
        value = bf16_to_float(rounded.back());
      }
      part = source_of(Tensor(rounded.data(), DType::kBF16, {n, k}));
    }
    const Tensor added(biases.data(), DType::kF32, {n});
    return has_bias ? backend_.pack_linear({&part, 1}, {&added, 1}) : backend_.pack_linear({&part, 1}, {});
  }

 private:
  static double store(float value, DType type, std::byte* to) {
    if (type == DType::kF32) {
      std::memcpy(to, &value, 4);
      return value;
    }
    const uint16_t bits = type == DType::kBF16 ? float_to_bf16(value) : float_to_half(value);
    std::memcpy(to, &bits, 2);
    return load(type, to);
  }
  static double load(DType type, const std::byte* from) {
    if (type == DType::kF32) {
      float value;
      std::memcpy(&value, from, 4);
      return value;
    }
    uint16_t bits;
    std::memcpy(&bits, from, 2);
    return type == DType::kBF16 ? bf16_to_float(bits) : half_to_float(bits);
  }
  void* place(size_t bytes) {
    memory_.push_back(backend_.allocate(std::max<size_t>(bytes, 16)));
    return memory_.back().data();
  }

  Backend& backend_;
  DType number_, type_;
  std::mt19937 random_;
  std::vector<Buffer> memory_;
};

// How far rounding the rows of a product may move a sum, of the size of its terms; 0: they are not rounded.
inline double rounding_of_rows(const Backend& backend, WeightFormat weights, DType number) {
  if (backend.supports(weights) && format_row(weights).rounds_rows) return 0x1p-5;
  const bool has_bf16_dots = backend.name() == "cpu-avx512bf16" || backend.name() == "cpu-avx512amx";
  return has_bf16_dots && number == DType::kBF16 ? 0x1p-8 : 0;
}

inline void expect_near(const std::vector<double>& got, const std::vector<double>& want,
                 const std::vector<double>& size, double tolerance, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    // A NaN compares with nothing: the negated test catches it.
    if (!(std::abs(got[i] - want[i]) <= tolerance * (std::abs(want[i]) + size[i]) + 1e-6)) {
      ADD_FAILURE() << what << ", element " << i << ": " << got[i] << " instead of " << want[i];
      return;
    }
  }
}

// Sequences of which each has `past` positions stored by an earlier step and `rows` new ones.
struct Seq {
  int past, rows;
};

// Each adds the cases of its ops.
void add_row_cases(std::vector<OpCase>& cases);
void add_expert_cases(std::vector<OpCase>& cases);
void add_attention_cases(std::vector<OpCase>& cases);
void add_kept_row_cases(std::vector<OpCase>& cases);
void add_recurrence_cases(std::vector<OpCase>& cases);
void add_sample_cases(std::vector<OpCase>& cases);

}  // namespace serval::testing
