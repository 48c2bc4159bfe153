// The host side of kernels/cuda/ptx.h: each instruction with the results and the fragment layout of the PTX
// manual, over the emulation's fibers. Unconfirmed until compared with a dump from a GPU
// (docs/gpu-ledger.md).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/cuda/number.h"
#include "kernels/cuda/simt.h"

namespace serval::cuda {

inline float to_float(Bf16 number) {
  return value_of(number);
}
inline float to_float(Half number) {
  return value_of(number);
}
inline float to_float(float number) {
  return number;
}

template <class T>
T from_float(float value);
template <>
inline Bf16 from_float<Bf16>(float value) {
  return bf16_from_float(value);
}
template <>
inline Half from_float<Half>(float value) {
  return half_from_float(value);
}
template <>
inline float from_float<float>(float value) {
  return value;
}

inline float exp2_fast(float x) {
  return std::exp2(x) < 0x1p-126f ? 0.0f : std::exp2(x);
}

inline float multiply_rounded(float a, float b) {
  return a * b;
}

inline Bytes16 load_streaming(const void* address) {
  Bytes16 v;
  std::memcpy(&v, address, sizeof v);
  return v;
}

template <class T>
void copy_async16(const simt::Shared<T>& to, int i, const void* source, bool is_valid = true) {
  simt::emulation::copy_async(to.checked_offset(i, 16), is_valid ? source : nullptr, 16);
}
inline void copy_async_commit() {
  simt::emulation::commit_copies();
}
template <int pending>
void copy_async_wait() {
  simt::emulation::wait_copies(pending);
}

// Every lane reads the row that it names; the rows change hands inside the warp.
template <class T, bool is_transposed>
void load_matrices(const simt::Shared<T>& from, int i, uint32_t (&r)[4]) {
  static_assert(sizeof(T) == 2);
  const Bytes16 row = from.template load<Bytes16>(i);
  simt::emulation::exchange(is_transposed ? "ldmatrix.x4.trans" : "ldmatrix.x4", &row, sizeof row, r,
                            sizeof r, [](const std::byte* in, std::byte* out, int, int, int) {
                              for (int lane = 0; lane < simt::kWarp; ++lane) {
                                for (int m = 0; m < 4; ++m) {
                                  uint16_t pair[2];
                                  for (int j = 0; j < 2; ++j) {
                                    const int g = lane / 4, t2 = 2 * (lane % 4) + j;
                                    const int matrix_row = is_transposed ? t2 : g,
                                              column = is_transposed ? g : t2;
                                    std::memcpy(&pair[j], in + (8 * m + matrix_row) * 16 + 2 * column, 2);
                                  }
                                  std::memcpy(out + lane * 16 + 4 * m, pair, 4);
                                }
                              }
                            });
}
template <class T>
void load_matrix_x4_transposed(const simt::Shared<T>& from, int i, uint32_t (&r)[4]) {
  load_matrices<T, true>(from, i, r);
}
template <class T>
void load_matrix_x4(const simt::Shared<T>& from, int i, uint32_t (&r)[4]) {
  load_matrices<T, false>(from, i, r);
}

// One product of the mma family: Element as stored, `per_word` of them in a register, sums in Sum rounded
// once to Out. K is 8 words deep whatever the element.
template <class Element, class Sum, class Out>
void multiply_fragments(const char* name, Out (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  struct In {
    uint32_t a[4], b[2];
    Out c[4];
  } in;
  static_assert(sizeof(In) <= 64);
  std::memcpy(in.a, a, sizeof in.a);
  std::memcpy(in.b, b, sizeof in.b);
  std::memcpy(in.c, c, sizeof in.c);
  simt::emulation::exchange(
      name, &in, sizeof in, c, sizeof in.c, [](const std::byte* ins, std::byte* out, int, int, int) {
        constexpr int kPerWord = 4 / sizeof(Element);
        constexpr int kDepth = 8 * kPerWord;
        Sum rows[16][kDepth], columns[8][kDepth];
        const auto element = [](uint32_t word, int j) {
          Element e;
          std::memcpy(&e, reinterpret_cast<const char*>(&word) + j * sizeof(Element), sizeof(Element));
          if constexpr (std::is_integral_v<Element>) {
            return static_cast<Sum>(e);
          } else {
            return static_cast<Sum>(to_float(e));
          }
        };
        In lanes[simt::kWarp];
        std::memcpy(lanes, ins, sizeof lanes);
        for (int lane = 0; lane < simt::kWarp; ++lane) {
          const int g = lane / 4, t = lane % 4;
          for (int j = 0; j < kPerWord; ++j) {
            const int low = t * kPerWord + j, high = low + 4 * kPerWord;
            rows[g][low] = element(lanes[lane].a[0], j);
            rows[g + 8][low] = element(lanes[lane].a[1], j);
            rows[g][high] = element(lanes[lane].a[2], j);
            rows[g + 8][high] = element(lanes[lane].a[3], j);
            columns[g][low] = element(lanes[lane].b[0], j);
            columns[g][high] = element(lanes[lane].b[1], j);
          }
        }
        for (int lane = 0; lane < simt::kWarp; ++lane) {
          Out result[4];
          for (int i = 0; i < 4; ++i) {
            const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
            Sum sum = lanes[lane].c[i];
            for (int k = 0; k < kDepth; ++k) sum += rows[row][k] * columns[column][k];
            result[i] = static_cast<Out>(sum);
          }
          std::memcpy(out + lane * sizeof result, result, sizeof result);
        }
      });
}

template <class T>
void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  multiply_fragments<T, double>(sizeof(T) == 2 ? "mma.m16n8k16" : "mma", c, a, b);
}
inline void mma_m16n8k32_int8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  multiply_fragments<int8_t, int32_t>("mma.m16n8k32.s8", c, a, b);
}

}  // namespace serval::cuda

namespace serval::cuda {
float to_float(Fp8 number);
inline void mma_m16n8k32_fp8(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  multiply_fragments<Fp8, double>("mma.m16n8k32.e4m3", c, a, b);
}
}  // namespace serval::cuda
