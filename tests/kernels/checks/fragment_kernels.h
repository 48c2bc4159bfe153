// Kernels that show what the instructions of kernels/cuda/ptx.h do with each register of each lane, and the
// conversions with each value. Device pointers throughout.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch_shape.h"

namespace serval::gpu {

// Loads four 8x8 matrices whose element i is the number i: plain, transposed [32 lanes][4 registers].
void load_numbered_matrices(simt::Stream stream, uint32_t* plain, uint32_t* transposed);

enum class ProductKind { kBf16, kHalf, kFp8, kInt8 };
constexpr int elements_per_word(ProductKind kind) {
  return kind == ProductKind::kBf16 || kind == ProductKind::kHalf ? 2 : 4;
}
// Elements of the factors a and b, counted by lane, then register, then place in the register.
constexpr int a_elements(ProductKind kind) {
  return 32 * 4 * elements_per_word(kind);
}
constexpr int b_elements(ProductKind kind) {
  return 32 * 2 * elements_per_word(kind);
}
// For each element of a, the product of the a that is 1 there and 0 elsewhere with the b whose element j is
// 1 + the `digit`-th base-16 digit of j. sums: [a_elements][32 lanes][4].
void multiply_units(simt::Stream stream, ProductKind kind, int digit, float* sums);

// Bits of the float of every 16-bit or 8-bit number: [65536], [65536], [256].
void widen_all(simt::Stream stream, uint32_t* of_bf16, uint32_t* of_half, uint32_t* of_fp8);

// Floats that are narrowed: every upper half with lower halves around the places where rounding changes.
inline constexpr int kNarrowed = 65536 * 8;
void narrow_all(simt::Stream stream, uint16_t* to_bf16, uint16_t* to_half, uint8_t* to_fp8);

// out[i] = exp2_fast(in[i]).
void exponentiate(simt::Stream stream, const float* in, float* out, int count);

}  // namespace serval::gpu
