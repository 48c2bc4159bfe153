// How weights are stored: one row a format. A new format is a row here, a case of the loader that reads or
// makes it, and a kernel in each backend that computes with it; a backend that does not is given the weights
// dequantised (Backend::held_format). Knows no backend and no checkpoint.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace serval {

// kInt8: codes -127..127 (not -128) times a scale for each row. The others after it have groups: of 8 and of 4
// bits in two's complement, 4 bits that a table says the meaning of, E4M3 (Micikevicius et al. 2022) and E3M2 (FP6, Xia et al. 2024).
// kInt8Dynamic and kInt4Dynamic: as kInt8 and kInt4, multiplied with activations that are rounded to codes of 8 bits too (W8A8,
// W4A8, a scale for each row).
enum class WeightFormat : uint8_t { kF32, kF16, kBF16, kInt8, kInt8Groups, kInt4, kTable4, kFp8, kFp6, kInt8Dynamic, kInt4Dynamic };
inline constexpr int kNumWeightFormats = 11;

inline constexpr int kWholeRow = -1, kOfMatrix = -2;

// A format with what belongs to one matrix of it.
struct MatrixFormat {
  WeightFormat id = WeightFormat::kF32;
  int64_t group = 0;  // where the format's row says kOfMatrix: neighbours along k that share a scale, or kWholeRow
  bool has_offsets = false;  // there too: a weight is its code times the scale, and an offset of the group
  // The plain numbers that it is dequantised to for want of kernels.
  WeightFormat plain = WeightFormat::kBF16;

  MatrixFormat(WeightFormat format) : id(format) {}
  MatrixFormat(WeightFormat format, int64_t neighbours, bool offsets = false)
      : id(format), group(neighbours), has_offsets(offsets) {}
  bool operator==(const MatrixFormat&) const = default;
};

// Numbers that the codes of a kTable4 stand for.
inline constexpr int kTableSize = 16;

// A weight matrix in host memory, at any alignment, as a loader hands it over. A view.
struct LinearSource {
  WeightFormat format = WeightFormat::kF32;
  int64_t n = 0;               // outputs
  int64_t k = 0;               // inputs
  const void* data = nullptr;  // [n, k] codes, rows without gaps; those of fewer than 8 bits have a byte each
  // f32 [n, groups of a row], where the format has scales: a weight is what its code means times the scale of
  // its group, and the group's offset, if there are offsets
  const float* scales = nullptr;
  int64_t group = 0;  // MatrixFormat::group
  const float* offsets = nullptr;
  const float* table = nullptr;  // [kTableSize], of a kTable4

  MatrixFormat matrix_format() const { return {format, group, offsets != nullptr}; }
};

struct WeightFormatRow {
  WeightFormat id;
  const char* name;
  int bits;                // of a code
  int group = 0;           // neighbours along k that share a scale, kWholeRow or kOfMatrix; 0: there are no scales
  DType number;  // the plain numbers that the weights are, or are dequantised to for want of kernels
  // The numbers that codes [first, first + count) of a matrix stand for; null: its table says.
  void (*decode)(const void* data, int64_t first, int64_t count, float* to);
  bool rounds_rows = false;  // each row that is multiplied is rounded first, by round_row()
  int together = 1;  // codes along k that lie together in memory: a group has a multiple of so many

  bool has_groups() const { return group == kOfMatrix; }
};

const WeightFormatRow& format_row(WeightFormat format);

// How many scales a row of k codes has.
int64_t num_groups(const MatrixFormat& format, int64_t k);

// Of n rows of k codes in a LinearSource, and of their scales.
size_t code_bytes(WeightFormat format, int64_t n, int64_t k);
size_t scale_bytes(const MatrixFormat& format, int64_t n, int64_t k);

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

// A row of activations as codes -127..127 under one scale, which the function returns: x is about code * scale. Ties to
// even. A row whose magnitudes are all below 2^-100 counts as zeros, and one with a value that is not finite gets a scale
// that is not a number. The definition that kernels are held against, bit for bit.
float round_row(const float* x, int64_t k, int8_t* codes);

// Numbers as codes 0..15: x is about scale * code + offset, with both of bf16, of which the function returns the bits, the
// scale's in the low half. The least number has code 0 and the largest 15, but for what rounds in scale and offset; ties to
// even. A value that is not finite makes both not numbers. The definition that kernels are held against, bit for bit.
uint32_t round_between(const float* x, int64_t k, uint8_t* codes);

// The same of a format with groups, each under a scale of its own, without offsets: kInt8Groups as above; kInt4 and kInt4Dynamic
// under the scale that makes -8 of its largest magnitude; kFp8 and kFp6 under the one that makes 448 and 28 of it. scales [n, groups].
void quantise_groups(const Tensor& matrix, const MatrixFormat& format, void* codes, float* scales);

}  // namespace serval
