// Arrays in a device's memory, for checks and measurements: the same on a GPU and on the emulated device.
// Knows nothing of kernels.
#pragma once

#include <cmath>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/number.h"
#include "kernels/cuda/runtime.h"

namespace serval::gpu {

using cuda::Bf16;
using cuda::Fp8;
using cuda::Half;
using cuda::value_of;

template <class T>
T rounded(float value);
template <>
inline Bf16 rounded<Bf16>(float value) {
  return cuda::bf16_from_float(value);
}
template <>
inline Half rounded<Half>(float value) {
  return cuda::half_from_float(value);
}
template <>
inline Fp8 rounded<Fp8>(float value) {
  return cuda::fp8_from_float(value);
}
template <>
inline float rounded<float>(float value) {
  return value;
}

// Memory between guard bytes, filled with not-a-number until written. Work on it goes to the default stream.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t size) : size_(size), raw_(cuda::allocate_device(bytes() + 2 * kGuard)) {
    if (raw_ == nullptr)
      throw std::runtime_error("the device has no " + std::to_string(bytes()) + " bytes of memory left");
    std::vector<unsigned char> image(bytes() + 2 * kGuard, 0xff);
    std::memset(image.data(), kGuardByte, kGuard);
    std::memset(image.data() + kGuard + bytes(), kGuardByte, kGuard);
    cuda::copy_to_device(nullptr, raw_, image.data(), image.size());
    cuda::synchronize(nullptr);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    cuda::copy_to_device(nullptr, data(), values.data(), bytes());
    cuda::synchronize(nullptr);
  }
  DeviceArray(DeviceArray&& other) noexcept : size_(other.size_), raw_(std::exchange(other.raw_, nullptr)) {}
  DeviceArray& operator=(DeviceArray&&) = delete;
  ~DeviceArray() {
    if (raw_ != nullptr) cuda::free_device(raw_);
  }

  T* data() const { return reinterpret_cast<T*>(static_cast<unsigned char*>(raw_) + kGuard); }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }

  // Waits for the default stream. Throws when somebody wrote beside the array.
  std::vector<T> download() const {
    std::vector<unsigned char> image(bytes() + 2 * kGuard);
    cuda::copy_to_host(nullptr, image.data(), raw_, image.size());
    cuda::synchronize(nullptr);
    for (size_t i = 0; i < kGuard; ++i) {
      if (image[i] != kGuardByte || image[kGuard + bytes() + i] != kGuardByte)
        throw std::runtime_error("written beside an array of " + std::to_string(bytes()) + " bytes");
    }
    std::vector<T> values(size_);
    if (size_ > 0) std::memcpy(values.data(), image.data() + kGuard, bytes());
    return values;
  }
  std::vector<float> download_values() const {
    std::vector<float> values;
    values.reserve(size_);
    for (const T number : download()) values.push_back(value_of(number));
    return values;
  }

 private:
  static constexpr size_t kGuard = 256;
  static constexpr unsigned char kGuardByte = 0xa5;

  size_t size_;
  void* raw_;
};

// Normal numbers rounded to T, a few of them twenty times as large.
template <class T>
std::vector<T> random_numbers(size_t count, std::mt19937& random, float scale = 1) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<T> numbers;
  numbers.reserve(count);
  for (size_t i = 0; i < count; ++i)
    numbers.push_back(rounded<T>(normal(random) * (random() % 199 == 0 ? 20 : 1)));
  return numbers;
}

// Units in the last place of T relative to a value: what rounding once to T may cost.
template <class T>
constexpr float kEpsilon = 0x1p-8f;
template <>
inline constexpr float kEpsilon<Half> = 0x1p-11f;
template <>
inline constexpr float kEpsilon<float> = 0x1p-22f;

}  // namespace serval::gpu
