// The instructions that kernels use beyond plain C++: conversions, fast functions, asynchronous copies,
// matrix loads and matrix products. On the device they are PTX; on the host, bodies with the same results
// over the emulation in kernels/emulation. Fragment layouts are those of the PTX ISA manual, "Matrix
// multiply-accumulate operation using mma instruction": g = lane / 4 and t = lane % 4 throughout. The host
// bodies of matrix products add in double and round once; the hardware's own order is not specified.
#pragma once

#include <cstdint>

#include "kernels/cuda/number.h"
#include "kernels/cuda/simt.h"

namespace serval::cuda {

// Sixteen bytes, moved as one.
struct alignas(16) Bytes16 {
  uint32_t word[4];
};
struct alignas(8) Bytes8 {
  uint32_t word[2];
};

}  // namespace serval::cuda

#if defined(__CUDACC__)

#include <cuda_fp16.h>

namespace serval::cuda {

SERVAL_DEVICE float to_float(Bf16 number) {
  return float_of(static_cast<uint32_t>(number.bits) << 16);
}
SERVAL_DEVICE float to_float(Half number) {
  return __half2float(__ushort_as_half(number.bits));
}
SERVAL_DEVICE float to_float(float number) {
  return number;
}

template <class T>
SERVAL_DEVICE T from_float(float value);
template <>
SERVAL_DEVICE Bf16 from_float<Bf16>(float value) {
  Bf16 number;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(number.bits) : "f"(value));
  return number;
}
template <>
SERVAL_DEVICE Half from_float<Half>(float value) {
  return {__half_as_ushort(__float2half_rn(value))};
}
template <>
SERVAL_DEVICE float from_float<float>(float value) {
  return value;
}

// 2^x, about 2 units in the last place; 0 far below.
SERVAL_DEVICE float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// a * b, rounded: never fused with an addition, so that two kernels give one result.
SERVAL_DEVICE float multiply_rounded(float a, float b) {
  return __fmul_rn(a, b);
}

// Reads that are used once: past the first-level cache.
SERVAL_DEVICE Bytes16 load_streaming(const void* address) {
  Bytes16 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
               : "l"(address));
  return v;
}

// Starts a copy of 16 bytes from global memory to element i of shared memory; zeros when !is_valid, and then
// `source` is not read.
template <class T>
SERVAL_DEVICE void copy_async16(const simt::Shared<T>& to, int i, const void* source, bool is_valid = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to.address(i)), "l"(source),
               "r"(is_valid ? 16 : 0)
               : "memory");
}
SERVAL_DEVICE void copy_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most `pending` of this thread's committed groups are on their way.
template <int pending>
SERVAL_DEVICE void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// Four 8x8 matrices of 16-bit elements, each transposed on the way: lane l names row l % 8 of matrix l / 8
// (16 bytes at element i); r[m] gets elements [2t, 2t + 1][g] of matrix m.
template <class T>
SERVAL_DEVICE void load_matrix_x4_transposed(const simt::Shared<T>& from, int i, uint32_t (&r)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from.address(i)));
}
// The same, not transposed: r[m] gets elements [g][2t, 2t + 1] of matrix m.
template <class T>
SERVAL_DEVICE void load_matrix_x4(const simt::Shared<T>& from, int i, uint32_t (&r)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from.address(i)));
}

#define SERVAL_MMA(instruction)                                                               \
  asm volatile(instruction " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                               \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

// c[16][8] += a[16][16] b[16][8], f32 sums. a: rows g, g + 8, columns 2t, 2t + 1 (a[0], a[1]) and 2t + 8,
// 2t + 9 (a[2], a[3]); b: rows 2t, 2t + 1 (b[0]) and 2t + 8, 2t + 9 (b[1]) of column g; c: row g (c[0], c[1])
// and g + 8 (c[2], c[3]), columns 2t, 2t + 1.
template <class T>
SERVAL_DEVICE void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
template <>
SERVAL_DEVICE void mma_m16n8k16<Bf16>(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  SERVAL_MMA("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32");
}
template <>
SERVAL_DEVICE void mma_m16n8k16<Half>(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  SERVAL_MMA("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32");
}

// c[16][8] += a[16][32] b[32][8] over bytes: as m16n8k16 with four elements where that has two.
// E4M3 products need compute capability 8.9; on an older device the call is our own mistake and traps.
SERVAL_DEVICE void mma_m16n8k32_fp8(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 890
  SERVAL_MMA("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32");
#else
  __trap();
#endif
}
SERVAL_DEVICE void mma_m16n8k32_int8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#undef SERVAL_MMA

}  // namespace serval::cuda

#else

#include "kernels/emulation/instructions.h"

#endif

namespace serval::cuda {

// Two numbers in a 32-bit register, the first in the low half.
template <class T>
SERVAL_DEVICE uint32_t pack_pair(float low, float high) {
  return static_cast<uint32_t>(from_float<T>(low).bits) | static_cast<uint32_t>(from_float<T>(high).bits)
                                                              << 16;
}

SERVAL_DEVICE float to_float(Fp8 number) {
  if ((number.bits & 0x7fu) == 0x7fu) return float_of(0x7fc00000u);
  return to_float(half_of_fp8_over_256(number)) * 256.0f;
}

}  // namespace serval::cuda
