// Device memory full of random numbers: zeros or constants would run faster than any real data.
#pragma once

#include <cstddef>

#include "loadtest/gpu/device_array.h"
#include "loadtest/gpu/measure.h"

namespace serval::gpu {

// Throws std::runtime_error when the device has not enough.
DeviceMemory take_memory(size_t bytes);

// Fills `count` numbers with one uploaded block of normal numbers, repeated. The block's length is odd, so
// that no two rows of a matrix are equal.
template <class T>
void fill_random(T* memory, size_t count, float scale = 1);

template <class T>
DeviceMemory random_memory(size_t count, float scale = 1) {
  DeviceMemory memory = take_memory(count * sizeof(T));
  fill_random(static_cast<T*>(memory.get()), count, scale);
  return memory;
}

template <class T>
DeviceMemory memory_of(const std::vector<T>& values) {
  DeviceMemory memory = take_memory(values.size() * sizeof(T));
  cuda::copy_to_device(nullptr, memory.get(), values.data(), values.size() * sizeof(T));
  cuda::synchronize(nullptr);
  return memory;
}

}  // namespace serval::gpu
