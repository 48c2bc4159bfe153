// Rows of numbers as vectors of eight: one 16-byte access where the row allows it, element by element
// otherwise.
#pragma once

#include "kernels/cuda/ptx.h"

namespace serval::cuda {

inline constexpr int kVector = 8;

template <class T>
struct alignas(sizeof(T) * kVector <= 16 ? sizeof(T) * kVector : 16) Vector {
  T element[kVector];
};

// Whether every row of `stride` elements, given that the first is, starts where a vector may.
SERVAL_HOST_DEVICE bool is_vectorised(int64_t stride) {
  return stride % kVector == 0;
}

// The first `valid` of eight elements, zeros behind them; memory beyond `valid` is not touched. is_aligned:
// `from` is where a vector may start.
template <class T>
SERVAL_DEVICE void load_vector(const T* from, int valid, bool is_aligned, float (&x)[kVector]) {
  if (is_aligned && valid >= kVector) {
    const Vector<T> v = *reinterpret_cast<const Vector<T>*>(from);
    SERVAL_UNROLL
    for (int i = 0; i < kVector; ++i) x[i] = to_float(v.element[i]);
  } else {
    SERVAL_UNROLL
    for (int i = 0; i < kVector; ++i) x[i] = i < valid ? to_float(from[i]) : 0.0f;
  }
}

template <class T>
SERVAL_DEVICE void store_vector(T* to, int valid, bool is_aligned, const float (&x)[kVector]) {
  if (is_aligned && valid >= kVector) {
    Vector<T> v;
    SERVAL_UNROLL
    for (int i = 0; i < kVector; ++i) v.element[i] = from_float<T>(x[i]);
    *reinterpret_cast<Vector<T>*>(to) = v;
  } else {
    SERVAL_UNROLL
    for (int i = 0; i < kVector; ++i)
      if (i < valid) to[i] = from_float<T>(x[i]);
  }
}

}  // namespace serval::cuda
