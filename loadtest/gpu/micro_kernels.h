// Kernels that measure the machine and not ours: what reading, products and launches cost by themselves. Device pointers.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch_shape.h"

namespace serval::gpu {

// Reads `bytes` (a multiple of 16) once, past the first-level cache, and adds a word of each warp to sums [kReadBlocks].
inline constexpr int kReadBlocks = 528;  // four for each multiprocessor of an H200
void read_once(simt::Stream stream, const void* from, int64_t bytes, uint32_t* sums);

// A kernel that does nothing.
void do_nothing(simt::Stream stream);

// mma.sync m16n8k16 in bf16 from registers alone: `rounds` times kProductsPerRound in each warp of `blocks` blocks.
// sums: [blocks][kProductThreads].
inline constexpr int kProductThreads = 256, kProductsPerRound = 8;
constexpr double product_flops(int blocks, int rounds) {
  return 2.0 * 16 * 8 * 16 * kProductsPerRound * rounds * blocks * (kProductThreads / simt::kWarp);
}
void multiply_registers(simt::Stream stream, int blocks, int rounds, float* sums);

}  // namespace serval::gpu
