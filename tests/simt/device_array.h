// Arrays in the emulated device's memory, for kernel tests.
#pragma once

#include <cstring>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "kernels/cuda/ptx.h"
#include "kernels/cuda/runtime.h"

namespace serval::cuda {

// Memory between guard bytes, filled with not-a-number until written.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t size)
      : size_(size), data_(static_cast<T*>(allocate_device(size * sizeof(T)))) {}
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    if (!values.empty()) std::memcpy(data_, values.data(), size_ * sizeof(T));
  }
  DeviceArray(DeviceArray&& other) noexcept
      : size_(other.size_), data_(std::exchange(other.data_, nullptr)) {}
  DeviceArray& operator=(DeviceArray&&) = delete;
  ~DeviceArray() {
    if (data_) free_device(data_);
  }
  T* data() const { return data_; }
  size_t size() const { return size_; }
  std::span<T> span() const { return {data_, size_}; }
  T& operator[](size_t i) const { return data_[i]; }

 private:
  size_t size_;
  T* data_;
};

template <class T>
std::vector<float> as_floats(std::span<const T> numbers) {
  std::vector<float> values;
  values.reserve(numbers.size());
  for (const T number : numbers) values.push_back(to_float(number));
  return values;
}

// Normal numbers rounded to T, a few of them twenty times as large.
template <class T>
std::vector<T> random_numbers(size_t count, std::mt19937& random, float scale = 1) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<T> numbers;
  numbers.reserve(count);
  for (size_t i = 0; i < count; ++i)
    numbers.push_back(from_float<T>(normal(random) * (random() % 199 == 0 ? 20 : 1)));
  return numbers;
}

// Units in the last place of T relative to a value: what rounding once to T may cost.
template <class T>
constexpr float kEpsilon = 0x1p-8f;
template <>
inline constexpr float kEpsilon<Half> = 0x1p-11f;
template <>
inline constexpr float kEpsilon<float> = 0x1p-22f;

}  // namespace serval::cuda
