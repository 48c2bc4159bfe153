// What the kernel tests share: a backend of a chosen instruction set, seeded data, and bits to compare.
#pragma once

#include <cmath>
#include <cstring>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/float_bits.h"

namespace serval::testing {

inline constexpr int kMaxTestRows = 200;

// A backend on which a step has begun, so that any op may be called.
class SteppingBackend {
 public:
  explicit SteppingBackend(std::unique_ptr<Backend> backend) : backend_(std::move(backend)) {}
  void begin_step(const StepLimits& limits) {
    context_ = backend_->make_step_context(limits);
    context_->begin_step({});
  }
  Backend& operator*() const { return *backend_; }
  Backend* operator->() const { return backend_.get(); }

 private:
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<StepContext> context_;
};

inline SteppingBackend backend_of(const std::string& isa, int threads = 2) {
  SteppingBackend backend(make_backend({.num_threads = threads, .isa = isa}));
  backend.begin_step({.max_rows = kMaxTestRows, .max_branches = 1, .num_heads = 16, .head_dim = 256, .max_k = 2304});
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

// Appends a head's numbers as a cache of keys and values in `type` has them.
inline void append_stored(const float* from, int width, DType type, std::vector<float>& to) {
  std::vector<uint8_t> codes(width);
  if (type == DType::kI8) {
    const float scale = round_row(from, width, reinterpret_cast<int8_t*>(codes.data()));
    for (const uint8_t code : codes) to.push_back(static_cast<float>(static_cast<int8_t>(code)) * scale);
  } else if (type == DType::kI4) {
    const uint32_t both = round_between(from, width, codes.data());
    const float scale = bf16_to_float(static_cast<uint16_t>(both)), offset = bf16_to_float(static_cast<uint16_t>(both >> 16));
    for (const uint8_t code : codes) to.push_back(static_cast<float>(code) * scale + offset);
  } else {
    for (int d = 0; d < width; ++d)
      to.push_back(type == DType::kF8     ? fp8_to_float(float_to_fp8(from[d]))
                   : type == DType::kBF16 ? bf16_to_float(float_to_bf16(from[d]))
                                          : from[d]);
  }
}

// A half with the nearest value that truncation gives; good enough to make test data.
inline uint16_t truncated_half(float value) {
  const auto bits = std::bit_cast<uint32_t>(value * 0x1p-112f);
  return static_cast<uint16_t>(((bits >> 16) & 0x8000) | ((bits >> 13) & 0x7fff));
}

inline constexpr WeightFormat kAllFormats[] = {WeightFormat::kF32, WeightFormat::kF16, WeightFormat::kBF16,
                                               WeightFormat::kInt8, WeightFormat::kInt8Groups, WeightFormat::kInt4,
                                               WeightFormat::kTable4, WeightFormat::kFp8, WeightFormat::kFp6,
                                               WeightFormat::kInt8Dynamic, WeightFormat::kInt4Dynamic};
static_assert(std::size(kAllFormats) == kNumWeightFormats);

// A matrix [n, k] stored in a format, and what its codes mean.
struct Stored {
  int64_t n, k;
  WeightFormat format;
  std::vector<std::byte> codes;
  std::vector<float> scales, offsets, table;
  std::vector<double> values;
  int64_t group;  // by default what no register has

  Stored(const std::vector<float>& matrix, int64_t rows, int64_t columns, WeightFormat stored_as, int64_t neighbours = 24)
      : n(rows), k(columns), format(stored_as), codes(code_bytes(format, n, k)), values(matrix.size()), group(neighbours) {
    group *= format_row(format).together == 16 ? 2 : 1;
    for (size_t i = 0; i < matrix.size(); ++i) {
      const float value = matrix[i];
      const auto store = [&](auto code, double meant) {
        std::memcpy(&codes[i * sizeof code], &code, sizeof code);
        values[i] = meant;
      };
      if (format == WeightFormat::kF32) {
        store(value, value);
      } else if (format == WeightFormat::kF16) {
        store(truncated_half(value), half_to_float(truncated_half(value)));
      } else if (format == WeightFormat::kBF16) {
        store(float_to_bf16(value), bf16_to_float(float_to_bf16(value)));
      } else if (format_row(format).group == kWholeRow) {  // all codes there are, and scales that nothing would choose
        if (i % k == 0) scales.push_back(0.004f * (1.0f + static_cast<float>(i / k % 13)));
        const int code = static_cast<int>(std::lround(value * 1000)) % 128;
        store(static_cast<int8_t>(code), code * double{scales.back()});
      } else {
        store_in_group(i, value);
      }
    }
  }
  // Integers have offsets here, the others none.
  void store_in_group(size_t i, float value) {
    const bool is_int4 = format == WeightFormat::kInt4 || format == WeightFormat::kInt4Dynamic;
    const bool has_offsets = is_int4 || format == WeightFormat::kInt8Groups;
    if (i % k % group == 0) {
      scales.push_back(0.004f * (1.0f + static_cast<float>(scales.size() % 13)));
      if (has_offsets) offsets.push_back(0.003f * (static_cast<float>(offsets.size() % 7) - 3));
    }
    for (int c = 0; c < kTableSize && table.size() < kTableSize; ++c) table.push_back(static_cast<float>(c * c - 90) / 64);
    const int any = static_cast<int>(std::lround(value * 1000)) & 255;
    uint8_t code = static_cast<uint8_t>(any);
    float meant = static_cast<int8_t>(any);
    if (is_int4) {
      code = static_cast<uint8_t>((any & 15) - 8);
      meant = static_cast<int8_t>(code);
    } else if (format == WeightFormat::kTable4) {
      code = any & 15;
      meant = table[code];
    } else if (format == WeightFormat::kFp8) {
      code = (any & 127) == 127 ? 0 : code;
      meant = fp8_to_float(code);
    } else if (format == WeightFormat::kFp6) {
      code = any & 63;
      meant = fp6_to_float(code);
    }
    codes[i] = std::byte{code};
    values[i] = meant * double{scales.back()} + (has_offsets ? offsets.back() : 0);
  }
  LinearSource source() const {
    return {.format = format,
            .n = n,
            .k = k,
            .data = codes.data(),
            .scales = scales.data(),
            .group = format_row(format).has_groups() ? group : 0,
            .offsets = offsets.empty() ? nullptr : offsets.data(),
            .table = table.empty() ? nullptr : table.data()};
  }
};

// What the rows of a format that rounds them are multiplied as.
inline std::vector<float> rounded_rows(std::vector<float> x, int64_t k) {
  std::vector<int8_t> codes(k);
  for (size_t row = 0; row < x.size(); row += k) {
    const float scale = round_row(&x[row], k, codes.data());
    for (int64_t i = 0; i < k; ++i) x[row + i] = static_cast<float>(codes[i]) * scale;
  }
  return x;
}

inline bool same_bits(const float* a, const float* b, size_t n) {
  return std::memcmp(a, b, n * sizeof(float)) == 0;
}

}  // namespace serval::testing
