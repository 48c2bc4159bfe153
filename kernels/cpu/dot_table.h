// What the products of rows rounded to bytes (WeightFormatRow::rounds_rows) and their callers agree on. hot_dots.cc is
// compiled once per set of instructions and fills one table each; dispatch.cc chooses. Sums are of integers, which are
// exact, and what is done to them afterwards are the same single operations everywhere: all tables give the same bits.
//
// This header is compiled with every set's flags, so it holds plain data only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/kernel_table.h"

namespace serval::cpu {

// Weights lie in panels of 32 outputs, [n/32][k/4][32][4] int8: four neighbours of k are what a lane multiplies at once.
// k is rounded up to a multiple of kDotStep with zeros, a row's codes too.
inline constexpr int kDotStep = 64;

// Of a panel: its outputs' scales, then what a row's codes add to each sum by being 128 too large.
struct DotScales {
  float scale[kPanel];
  int32_t excess[kPanel];  // 128 * the sum of the output's codes
};

struct DotArgs {  // one panel times some rows
  const int8_t* weights;
  const uint8_t* rows;     // codes + 128, [num_rows][k]
  const float* row_scales;  // [num_rows]
  int num_rows;
  int64_t k;  // a multiple of kDotStep
  const DotScales* scales;
  const float* bias;  // [valid], may be null
  float* out;         // first row, the panel's first column
  int64_t out_stride;
  int valid;  // columns of this panel that exist, 1..32
};

struct DotTable {
  const char* name;
  // round_row() of kernels/quant.h, by the same operations; codes [padded], those beyond k are 128.
  void (*round_row)(const float* x, int64_t k, int64_t padded, uint8_t* codes, float* scale);
  void (*panel)(const DotArgs& args);
};

}  // namespace serval::cpu
