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

// Weights lie in panels of 32 outputs:
//   int8    [n/32][k/4][32][4]: four neighbours of k are what a lane multiplies at once; k is rounded up to a multiple of kDotStep
//   4 bits  [n/32][k/8][32][4] bytes, of codes + 8: the first four of eight neighbours in the low halves of a lane's bytes, the others
//           in the high ones; k is rounded up to a multiple of kNibbleStep
// What is beyond k has codes of rows that are zeros. Scales of groups are as kernel_table.h has them.
inline constexpr int kDotStep = 64, kNibbleStep = 8;
// Of 4 bits integers are added up over pieces of so many k at most: a group, or of a longer one equal parts.
inline constexpr int kMostPiece = 512;

// Of a panel of int8: its outputs' scales, then what a row's codes add to each sum by being 128 too large.
struct DotScales {
  float scale[kPanel];
  int32_t excess[kPanel];  // 128 * the sum of the output's codes
};

struct DotArgs {  // one panel times some rows
  const void* weights;
  const uint8_t* rows;  // codes, [num_rows][k]; beside int8 they are 128 larger, beside 4 bits they have a sign
  const float* row_scales;  // [num_rows]
  int num_rows;
  int64_t k;  // a multiple of the weights' step
  const DotScales* scales = nullptr;  // of int8
  // Of 4 bits: the panel's scales of groups, k of a piece, a multiple of kNibbleStep, and how many of those a group has.
  const float* group_scales = nullptr;
  int64_t piece = 0, pieces_of_group = 1;
  bool has_offsets = false;
  const int32_t* row_sums = nullptr;  // [num_rows][pieces], of DotTable::sum_pieces
  const float* bias;  // [valid], may be null
  float* out;         // first row, the panel's first column
  int64_t out_stride;
  int valid;  // columns of this panel that exist, 1..32
};

struct DotTable {
  const char* name;
  // round_row() of kernels/quant.h, by the same operations; codes [padded] have `zero` added, and those beyond k are that.
  void (*round_row)(const float* x, int64_t k, int64_t padded, uint8_t zero, uint8_t* codes, float* scale);
  // Of each piece of a row's codes -8 times the sum: what takes from a product that each code of 4 bits is 8 too large.
  void (*sum_pieces)(const int8_t* codes, int64_t k, int64_t piece, int32_t* sums);
  void (*panel)(const DotArgs& args);
  void (*nibble_panel)(const DotArgs& args);
};

}  // namespace serval::cpu
