// Products of weights of 4 bits whose scales are of groups with rows of bytes (dot_table.h). Included by hot_dots.cc alone.
//
// The integers of a piece of k (DotArgs::piece) are added up in registers, made floats, multiplied by the group's scale and
// added to the output's sum, pieces ascending; where there are offsets, so is the offset times the sum of the row's codes.
// Nothing is fused, so that every set of instructions gives the same bits.
#pragma once

#include "kernels/cpu/dot_table.h"
#include "kernels/cpu/dot_vectors.h"
#include "kernels/cpu/simd.h"

namespace serval::cpu {
namespace {

// Rows of a register tile, which has an integer and a float for each output.
#if defined(__AVX512F__)
constexpr int kNibbleRows = 6;
#elif defined(__AVX2__)
constexpr int kNibbleRows = 4;
#else
constexpr int kNibbleRows = 3;
#endif

template <int MR>
void sum_nibbles(const DotArgs& args, int row, Prefetch ahead, float* sums) {
  constexpr int NV = 2;
  const int64_t pieces = (args.k + args.piece - 1) / args.piece, stride = args.has_offsets ? 2 * kPanel : kPanel;
  const int64_t scales_ahead = row == 0 ? 256 : 0;
  const uint8_t* const codes = args.rows + row * args.k;
  for (int part = 0; part < kVecs; part += NV) {
    const char* w = static_cast<const char*>(args.weights) + part * sizeof(IntVec);
    const char* next = ahead.at;
    Vec total[MR][NV] = {};
    const float* scales = args.group_scales + part * kLanes;
    const int32_t* row_sums = args.row_sums + row * pieces;
    int64_t left = args.pieces_of_group;  // of this group
    for (int64_t i = 0; i < args.k; ++row_sums) {
      const int64_t piece_end = args.k - i < args.piece ? args.k : i + args.piece;
      if (MR > 1) {
        __builtin_prefetch(scales + scales_ahead);
        __builtin_prefetch(scales + scales_ahead + 16);
      }
      IntVec whole[MR][NV];
#pragma GCC unroll 8
      for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) whole[m][v] = IntVec{} + row_sums[m * pieces];
      }
      while (i < piece_end) {
        const int64_t run_end = piece_end - i < kRun ? piece_end : i + kRun;
        PartialSums run[MR][NV];
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 2
          for (int v = 0; v < NV; ++v) run[m][v] = begin_run(whole[m][v]);
        }
        for (; i < run_end; i += kNibbleStep, w += 4 * kPanel) {
          __builtin_prefetch(next);
          __builtin_prefetch(next + 64);
          next += ahead.bytes;
#pragma GCC unroll 2
          for (int half = 0; half < 2; ++half) {
            asm volatile("" ::: "memory");  // else all weights of a step are in registers at once, which are too few
            Nibbles weight[NV];
#pragma GCC unroll 2
            for (int v = 0; v < NV; ++v) weight[v] = nibbles_at(w + v * sizeof(IntVec), half);
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m) {
              int32_t four;
              std::memcpy(&four, codes + m * args.k + i + half * 4, sizeof four);
              const SignedCodes x = signed_codes_of(four);
#pragma GCC unroll 2
              for (int v = 0; v < NV; ++v) run[m][v] = add_products(run[m][v], weight[v], x);
            }
          }
        }
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 2
          for (int v = 0; v < NV; ++v) whole[m][v] = end_run(whole[m][v], run[m][v]);
        }
      }
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) {
        const Vec scale = load(scales + v * kLanes);
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) total[m][v] = total[m][v] + to_floats(whole[m][v]) * scale;
      }
      if (args.has_offsets) {
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) {
          const Vec sum_of_row = broadcast(static_cast<float>(row_sums[m * pieces]) * -0.125f);
#pragma GCC unroll 2
          for (int v = 0; v < NV; ++v) total[m][v] = total[m][v] + sum_of_row * load(scales + kPanel + v * kLanes);
        }
      }
      if (--left == 0) {
        left = args.pieces_of_group;
        scales += stride;
      }
    }
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) store(sums + m * kPanel + (part + v) * kLanes, total[m][v]);
    }
  }
}

constexpr Tiles<float, kNibbleRows> kNibbleTiles = []<int... Row>(std::integer_sequence<int, Row...>) {
  return Tiles<float, kNibbleRows>{{sum_nibbles<Row + 1>...}};
}
(std::make_integer_sequence<int, kNibbleRows>{});

void nibble_panel(const DotArgs& args) {
  run_tiles(args, kNibbleTiles, args.k / kNibbleStep, 1, [&](int row, int rows, const float* sums) {
    store_rows(args, row, rows, [&](int m, int v, Vec bias) {
      return load(sums + m * kPanel + v * kLanes) * broadcast(args.row_scales[row + m]) + bias;
    });
  });
}

}  // namespace
}  // namespace serval::cpu
