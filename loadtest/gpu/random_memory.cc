#include "loadtest/gpu/random_memory.h"

#include <algorithm>

namespace serval::gpu {

DeviceMemory take_memory(size_t bytes) {
  void* const memory = cuda::allocate_device(std::max<size_t>(bytes, 1));
  if (memory == nullptr)
    throw std::runtime_error("the device has no " + std::to_string(bytes) + " bytes of memory left");
  return DeviceMemory(memory);
}

template <class T>
void fill_random(T* memory, size_t count, float scale) {
  constexpr size_t kBlock = 1'000'003;
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0, scale);
  std::vector<T> block(std::min(count, kBlock));
  for (T& number : block) number = rounded<T>(normal(random));
  cuda::copy_to_device(nullptr, memory, block.data(), block.size() * sizeof(T));
  for (size_t done = block.size(); done < count;) {  // what is there, doubled
    const size_t more = std::min(done, count - done);
    cuda::copy_on_device(nullptr, memory + done, memory, more * sizeof(T));
    done += more;
  }
  cuda::synchronize(nullptr);
}

template void fill_random<Bf16>(Bf16*, size_t, float);
template void fill_random<Fp8>(Fp8*, size_t, float);
template void fill_random<float>(float*, size_t, float);

}  // namespace serval::gpu
