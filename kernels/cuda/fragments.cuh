// Matrix products straight from rows. Inside a run of 32 consecutive k, lane t of a group of four holds
// k = 8t .. 8t + 7 as 16 bytes, and their four pairs are the k pairs of two consecutive m16n8k16 products:
// the order of k inside a product is free as long as both factors agree on it. So every access is 16 bytes
// wide and no matrix load is needed for a factor that lies in rows.
#pragma once

#include "kernels/cuda/ptx.h"

namespace serval::cuda {

inline constexpr int kRun = 32;

// sum[16][8] += the two products of a run: rows g and g + 8 of the m side, column g of the n side.
template <class T>
SERVAL_DEVICE void multiply_run(float (&sum)[4], const Bytes16& low, const Bytes16& high,
                                const Bytes16& column) {
  SERVAL_UNROLL
  for (int i = 0; i < 4; i += 2) {
    const uint32_t a[4] = {low.word[i], high.word[i], low.word[i + 1], high.word[i + 1]};
    const uint32_t b[2] = {column.word[i], column.word[i + 1]};
    mma_m16n8k16<T>(sum, a, b);
  }
}

}  // namespace serval::cuda
