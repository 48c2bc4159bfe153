// What the kernel tests share: a backend of a chosen instruction set, seeded data, and bits to compare.
#pragma once

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/float_bits.h"

namespace serval::testing {

inline constexpr int kMaxTestRows = 200;

inline std::unique_ptr<Backend> backend_of(const std::string& isa, int threads = 2) {
  auto backend = make_backend({.num_threads = threads, .isa = isa});
  backend->reserve(
      {.max_rows = kMaxTestRows, .num_heads = 16, .head_dim = 256, .max_k = 2304, .max_n = 2304});
  return backend;
}

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  float normal() { return normal_(engine_); }
  int below(int n) { return static_cast<int>(engine_() % static_cast<uint64_t>(n)); }
  std::vector<float> floats(size_t n) {
    std::vector<float> values(n);
    for (float& v : values) v = normal();
    return values;
  }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<float> normal_;
};

inline Tensor matrix(std::vector<float>& values, int64_t rows, int64_t columns) {
  return Tensor(values.data(), DType::kF32, {rows, columns});
}

// A half with the nearest value that truncation gives; good enough to make test data.
inline uint16_t truncated_half(float value) {
  const auto bits = std::bit_cast<uint32_t>(value * 0x1p-112f);
  return static_cast<uint16_t>(((bits >> 16) & 0x8000) | ((bits >> 13) & 0x7fff));
}

// Values stored as `dtype`, and what they mean.
struct Stored {
  std::vector<std::byte> bytes;
  std::vector<float> values;
  DType dtype;

  Stored(const std::vector<float>& source, DType type)
      : bytes(source.size() * dtype_bytes(type)), values(source.size()), dtype(type) {
    for (size_t i = 0; i < source.size(); ++i) {
      if (type == DType::kF32) {
        values[i] = source[i];
        std::memcpy(&bytes[i * 4], &source[i], 4);
        continue;
      }
      const uint16_t bits = type == DType::kBF16 ? float_to_bf16(source[i]) : truncated_half(source[i]);
      values[i] = type == DType::kBF16 ? bf16_to_float(bits) : half_to_float(bits);
      std::memcpy(&bytes[i * 2], &bits, 2);
    }
  }
  LinearSource source(int64_t n, int64_t k) { return source_of(Tensor(bytes.data(), dtype, {n, k})); }
};

inline bool same_bits(const float* a, const float* b, size_t n) {
  return std::memcmp(a, b, n * sizeof(float)) == 0;
}

}  // namespace serval::testing
