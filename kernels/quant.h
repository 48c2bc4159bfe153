// How weights are stored: one row a format. A new format is a row here, a case of the loader that reads or
// makes it, and a kernel in each backend that computes with it; a backend that does not is given the weights
// dequantised (Backend::held_format). Knows no backend and no checkpoint.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace serval {

// kInt8: codes -127..127 (not -128) times a scale for each row.
enum class WeightFormat : uint8_t { kF32, kF16, kBF16, kInt8 };
inline constexpr int kNumWeightFormats = 4;

// A weight matrix in host memory, at any alignment, as a loader hands it over. A view.
struct LinearSource {
  WeightFormat format = WeightFormat::kF32;
  int64_t n = 0;               // outputs
  int64_t k = 0;               // inputs
  const void* data = nullptr;  // [n, k] codes, rows without gaps
  // [n, groups of a row], where the format has scales: a weight is its code times the scale of its group
  const float* scales = nullptr;
};

inline constexpr int kWholeRow = -1;

struct WeightFormatRow {
  WeightFormat id;
  const char* name;
  int bits;                // of a code
  int group = 0;           // neighbours along k that share a scale, or kWholeRow; 0: there are no scales
  bool has_zeros = false;  // a weight is (code - zero of its group) * scale; no format is that yet
  DType scale_type = DType::kF32;
  DType number;  // the plain numbers that the weights are, or are dequantised to for want of kernels
  // The numbers that codes [first, first + count) of a matrix stand for.
  void (*decode)(const void* data, int64_t first, int64_t count, float* to);
};

const WeightFormatRow& format_row(WeightFormat format);

// Of n rows of k codes, and of their scales.
size_t code_bytes(WeightFormat format, int64_t n, int64_t k);
size_t scale_bytes(WeightFormat format, int64_t n, int64_t k);

// What row `row` of the source means: to [k]. The definition that kernels are held against.
void dequantise_row(const LinearSource& source, int64_t row, float* to);

// The format of plain numbers: f32, f16 or bf16.
WeightFormat format_of(DType type);

// A matrix of plain numbers, [n, k].
LinearSource source_of(const Tensor& matrix);

// Rounds each row of a matrix of plain numbers to the nearest codes under the scale that makes 127 of its
// largest magnitude; ties to even. codes [n, k], scales [n]. A row with a value that is not finite gets a
// scale that is not a number.
void quantise_int8(const Tensor& matrix, int8_t* codes, float* scales);

}  // namespace serval
