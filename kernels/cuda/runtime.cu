#include "kernels/cuda/runtime.h"

#include <cuda_runtime.h>

#include "kernels/cuda/cuda_check.h"

namespace serval::cuda {
namespace {

cudaStream_t native(Stream stream) {
  return static_cast<cudaStream_t>(stream);
}

}  // namespace

std::string device_problem() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return std::string("no CUDA device can be used: ") + cudaGetErrorString(error);
  }
  if (count == 0) return "this machine has no CUDA device";
  cudaDeviceProp properties{};
  CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
  if (properties.major < 8) {
    return std::string(properties.name) + " has compute capability " + std::to_string(properties.major) +
           "." + std::to_string(properties.minor) + "; the kernels need 8.0";
  }
  return {};
}

DeviceProperties device_properties() {
  cudaDeviceProp properties{};
  CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
  return {.name = properties.name,
          .compute_capability = 10 * properties.major + properties.minor,
          .num_sms = properties.multiProcessorCount,
          .total_bytes = properties.totalGlobalMem,
          .shared_bytes_per_block = properties.sharedMemPerBlockOptin};
}

size_t free_device_bytes() {
  size_t free = 0, total = 0;
  CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return free;
}

void* allocate_device(size_t bytes) {
  void* memory = nullptr;
  if (cudaMalloc(&memory, bytes) == cudaSuccess) return memory;
  cudaGetLastError();
  return nullptr;
}
void free_device(void* memory) {
  CUDA_CHECK(cudaFree(memory));
}
void* allocate_pinned(size_t bytes) {
  void* memory = nullptr;
  if (cudaMallocHost(&memory, bytes) == cudaSuccess) return memory;
  cudaGetLastError();
  return nullptr;
}
void free_pinned(void* memory) {
  CUDA_CHECK(cudaFreeHost(memory));
}

Stream create_stream() {
  cudaStream_t stream = nullptr;
  CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}
void destroy_stream(Stream stream) {
  CUDA_CHECK(cudaStreamDestroy(native(stream)));
}
void synchronize(Stream stream) {
  CUDA_CHECK(cudaStreamSynchronize(native(stream)));
}
void copy_to_device(Stream stream, void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;  // nothing may come from nowhere
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, native(stream)));
}
void copy_to_host(Stream stream, void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, native(stream)));
}
void copy_on_device(Stream stream, void* to, const void* from, size_t bytes) {
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, native(stream)));
}
void clear(Stream stream, void* memory, size_t bytes) {
  CUDA_CHECK(cudaMemsetAsync(memory, 0, bytes, native(stream)));
}

Event create_event() {
  cudaEvent_t event = nullptr;
  CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return event;
}
void destroy_event(Event event) {
  CUDA_CHECK(cudaEventDestroy(static_cast<cudaEvent_t>(event)));
}
void record(Event event, Stream stream) {
  CUDA_CHECK(cudaEventRecord(static_cast<cudaEvent_t>(event), native(stream)));
}
void wait(Event event) {
  CUDA_CHECK(cudaEventSynchronize(static_cast<cudaEvent_t>(event)));
}
Event create_timing_event() {
  cudaEvent_t event = nullptr;
  CUDA_CHECK(cudaEventCreate(&event));
  return event;
}
float elapsed_ms(Event begin, Event end) {
  float ms = 0;
  CUDA_CHECK(cudaEventElapsedTime(&ms, static_cast<cudaEvent_t>(begin), static_cast<cudaEvent_t>(end)));
  return ms;
}

void begin_capture(Stream stream) {
  CUDA_CHECK(cudaStreamBeginCapture(native(stream), cudaStreamCaptureModeThreadLocal));
}
Graph end_capture(Stream stream) {
  cudaGraph_t captured = nullptr;
  CUDA_CHECK(cudaStreamEndCapture(native(stream), &captured));
  cudaGraphExec_t graph = nullptr;
  CUDA_CHECK(cudaGraphInstantiate(&graph, captured, 0));
  CUDA_CHECK(cudaGraphDestroy(captured));
  return graph;
}
void launch_graph(Graph graph, Stream stream) {
  CUDA_CHECK(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), native(stream)));
}
void destroy_graph(Graph graph) {
  CUDA_CHECK(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)));
}

}  // namespace serval::cuda
