// How weights are stored: one row a format. A new format is a row here, a case of the loader that reads or makes
// it, and a kernel in each backend that computes with it; a backend that does not is given the weights
// dequantised (Backend::held_format). Knows no backend and no checkpoint.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace serval {

enum class WeightFormat : uint8_t { kF32, kF16, kBF16 };
inline constexpr int kNumWeightFormats = 3;

// A weight matrix in host memory, at any alignment, as a loader hands it over. A view.
struct LinearSource {
  WeightFormat format = WeightFormat::kF32;
  int64_t n = 0;               // outputs
  int64_t k = 0;               // inputs
  const void* data = nullptr;  // [n, k] codes, rows without gaps
};

struct WeightFormatRow {
  WeightFormat id;
  const char* name;
  int bits;  // of a code
  // Code i of a matrix as the number it stands for.
  float (*decode)(const void* data, int64_t i);
};

const WeightFormatRow& format_row(WeightFormat format);

// Of n rows of k codes.
size_t code_bytes(WeightFormat format, int64_t n, int64_t k);

// What row `row` of the source means: to [k]. The definition that kernels are held against.
void dequantise_row(const LinearSource& source, int64_t row, float* to);

// The format of values that are stored as plain numbers (f32, f16, bf16), and back.
WeightFormat format_of(DType type);
DType dtype_of(WeightFormat format);

// A matrix of plain numbers, [n, k].
LinearSource source_of(const Tensor& matrix);

}  // namespace serval
