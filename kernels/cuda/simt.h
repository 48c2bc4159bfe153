// What a kernel may use of the machine: indices, barriers, warp exchanges, shared memory, atomics and the
// launch. With nvcc it is CUDA; with the host compiler it is the emulation in kernels/emulation, which runs the same
// kernel source on a machine without a GPU and reports races, out-of-bounds accesses and deadlocks.
// Together with ptx.h the only place where host and device differ, but for the mark of
// kernels/host_device.h. Kernels are one-dimensional in the block; lanes 0..31 of a warp are its consecutive
// threads. Every warp is whole: blocks are multiples of 32.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/launch_shape.h"
#include "kernels/host_device.h"

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#include "kernels/cuda/cuda_check.h"

#define SERVAL_KERNEL __global__
#define SERVAL_DEVICE __device__ __forceinline__
#define SERVAL_UNROLL _Pragma("unroll")
#define SERVAL_NO_UNROLL _Pragma("unroll 1")
#define SERVAL_MAX_THREADS(threads) __launch_bounds__(threads, 1)

namespace serval::simt {

SERVAL_DEVICE int thread() {
  return static_cast<int>(threadIdx.x);
}
SERVAL_DEVICE int num_threads() {
  return static_cast<int>(blockDim.x);
}
SERVAL_DEVICE int block_x() {
  return static_cast<int>(blockIdx.x);
}
SERVAL_DEVICE int block_y() {
  return static_cast<int>(blockIdx.y);
}
SERVAL_DEVICE int grid_x() {
  return static_cast<int>(gridDim.x);
}

SERVAL_DEVICE void sync_block() {
  __syncthreads();
}
SERVAL_DEVICE void sync_warp() {
  __syncwarp();
}
template <class T>
SERVAL_DEVICE T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
template <class T>
SERVAL_DEVICE T shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}
SERVAL_DEVICE uint32_t ballot(bool value) {
  return __ballot_sync(0xffffffffu, value);
}
SERVAL_DEVICE int popcount(uint32_t bits) {
  return __popc(bits);
}

template <class T>
SERVAL_DEVICE T atomic_add(T* address, T value) {
  return atomicAdd(address, value);
}
SERVAL_DEVICE uint64_t atomic_add(uint64_t* address, uint64_t value) {
  return atomicAdd(reinterpret_cast<unsigned long long*>(address), static_cast<unsigned long long>(value));
}

// A run of shared memory. get and set move one element; load and store move a vector that starts at element i
// and must be aligned to its own size.
template <class T>
class Shared {
 public:
  SERVAL_DEVICE explicit Shared(T* memory) : memory_(memory) {}
  SERVAL_DEVICE T get(int i) const { return memory_[i]; }
  SERVAL_DEVICE void set(int i, T value) const { memory_[i] = value; }
  template <class V>
  SERVAL_DEVICE V load(int i) const {
    return *reinterpret_cast<const V*>(memory_ + i);
  }
  template <class V>
  SERVAL_DEVICE void store(int i, const V& value) const {
    *reinterpret_cast<V*>(memory_ + i) = value;
  }
  SERVAL_DEVICE T atomic_add(int i, T value) const { return simt::atomic_add(memory_ + i, value); }
  SERVAL_DEVICE Shared at(int offset, int) const { return Shared(memory_ + offset); }
  SERVAL_DEVICE uint32_t address(int i) const {
    return static_cast<uint32_t>(__cvta_generic_to_shared(memory_ + i));
  }

 private:
  T* memory_;
};

extern __shared__ uint4 serval_shared_memory[];

// Hands out the block's shared memory from its start; every thread takes the same runs in the same order.
class SharedMemory {
 public:
  template <class T>
  SERVAL_DEVICE Shared<T> take(int count) {
    T* const memory = reinterpret_cast<T*>(reinterpret_cast<char*>(serval_shared_memory) + used_);
    used_ += (count * static_cast<int>(sizeof(T)) + 15) / 16 * 16;
    return Shared<T>(memory);
  }

 private:
  int used_ = 0;
};

// Starts kernel(args...) on the stream. An impossible shape is our own mistake and ends the process.
template <auto kernel, class... Args>
void launch(Stream stream, const LaunchShape& shape, Args... args) {
  static const bool is_ready = [] {
    int device = 0, most = 0;
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
    return true;
  }();
  static_cast<void>(is_ready);
  if (shape.grid_x == 0 || shape.grid_y == 0) return;
  kernel<<<dim3(shape.grid_x, shape.grid_y), shape.threads, shape.shared_bytes,
           static_cast<cudaStream_t>(stream)>>>(args...);
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace serval::simt

#else

#define SERVAL_KERNEL
#define SERVAL_DEVICE inline
#define SERVAL_UNROLL
#define SERVAL_NO_UNROLL
#define SERVAL_MAX_THREADS(threads)

#include "kernels/emulation/emulation.h"

#endif

namespace serval::simt {

SERVAL_DEVICE int lane() {
  return thread() % kWarp;
}
SERVAL_DEVICE int warp() {
  return thread() / kWarp;
}

// Reductions over a warp whose tree does not depend on anything but the lane: every lane gets the same bits.
SERVAL_DEVICE float warp_sum(float value) {
  SERVAL_UNROLL
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}
SERVAL_DEVICE float warp_max(float value) {
  SERVAL_UNROLL
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const float other = shuffle_xor(value, mask);
    value = value > other ? value : other;
  }
  return value;
}

// The sum over a block, for every thread. scratch: one element for each warp; the sum runs over the warps in
// their order. Ends with a barrier, so that scratch can be used again.
SERVAL_DEVICE float block_sum(float value, const Shared<float>& scratch) {
  value = warp_sum(value);
  if (lane() == 0) scratch.set(warp(), value);
  sync_block();
  float sum = 0;
  for (int w = 0; w < num_threads() / kWarp; ++w) sum += scratch.get(w);
  sync_block();
  return sum;
}

}  // namespace serval::simt
