// Dense row-major tensors: a view that owns nothing (Tensor) and the memory behind it (Buffer).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>

#include "kernels/base/check.h"

namespace serval {

// kF8: E4M3. kI8 and kI4: codes under scales that stand beside them, of kept keys and values alone (KvLayer).
enum class DType : uint8_t { kF32, kF16, kBF16, kI32, kF8, kI8, kI4 };

constexpr size_t dtype_bits(DType type) {
  constexpr size_t kBits[] = {32, 16, 16, 32, 8, 8, 4};
  return kBits[static_cast<int>(type)];
}
constexpr size_t dtype_bytes(DType type) {
  return dtype_bits(type) / 8;  // of kI4 none: two of them share one
}
constexpr const char* dtype_name(DType type) {
  constexpr const char* kNames[] = {"f32", "f16", "bf16", "i32", "f8", "i8", "i4"};
  return kNames[static_cast<int>(type)];
}

// Up to four dimensions, contiguous, innermost last. Copying copies the view.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int rank = 0;
  std::array<int64_t, 4> dims{};

  Tensor() = default;
  Tensor(void* memory, DType type, std::initializer_list<int64_t> shape)
      : data(memory), dtype(type), rank(static_cast<int>(shape.size())) {
    SERVAL_CHECK(shape.size() <= dims.size(), shape.size());
    int i = 0;
    for (const int64_t d : shape) dims[i++] = d;
  }
  int64_t dim(int i) const { return dims[i]; }
  int64_t num_elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dims[i];
    return n;
  }
  size_t num_bytes() const { return static_cast<size_t>(num_elements()) * dtype_bytes(dtype); }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  // The same view, `elements` further on.
  void* at(int64_t elements) const {
    return static_cast<std::byte*>(data) + elements * static_cast<int64_t>(dtype_bytes(dtype));
  }
};

// Owning memory from a Backend; its deleter knows the device. Move-only.
struct Buffer {
  std::unique_ptr<void, void (*)(void*)> memory{nullptr, [](void*) {}};
  size_t bytes = 0;

  void* data() const { return memory.get(); }
  template <class T>
  T* as() const {
    return static_cast<T*>(memory.get());
  }
};

}  // namespace serval
