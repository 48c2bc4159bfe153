#include "loadtest/gpu/hopper_probe.h"

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cuda/cuda_check.h"
#include "loadtest/gpu/device_array.h"

namespace serval::gpu {
namespace {

namespace json = boost::json;

// One warp group multiplies the same fragments of a [64][16] with b [16][8] by wgmma and by mma.sync, `steps` times along k.
// a: [steps][128 threads][4 words], the fragment layout of m16n8k16 in each warp, which both instructions share; b: [steps][64
// words], two core matrices of 8 columns x 16 bytes, unswizzled. PTX ISA, "Asynchronous warpgroup level matrix instructions".
constexpr int kThreads = 128, kSteps = 32, kRounds = 200;

__global__ void __launch_bounds__(kThreads, 1) multiply_both(const uint32_t* a, const uint32_t* b, float* by_wgmma, float* by_mma) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  __shared__ __align__(128) uint32_t tile[64];
  const int t = static_cast<int>(threadIdx.x), lane = t % 32;
  float d[4] = {}, c[4] = {};
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(tile));
  constexpr uint64_t kLeadingBytes = 128, kStrideBytes = 256;
  const uint64_t descriptor = (address & 0x3ffff) >> 4 | kLeadingBytes >> 4 << 16 | kStrideBytes >> 4 << 32;
  for (int s = 0; s < kSteps; ++s) {
    const uint32_t* const words = a + (s * kThreads + t) * 4;
    const uint32_t a0 = words[0], a1 = words[1], a2 = words[2], a3 = words[3];
    if (t < 64) tile[t] = b[s * 64 + t];
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, {%4, %5, %6, %7}, %8, 1, 1, 1, 0;"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(descriptor));
    asm volatile("wgmma.commit_group.sync.aligned;\n\twgmma.wait_group.sync.aligned 0;" ::: "memory");
    const uint32_t b0 = tile[lane], b1 = tile[32 + lane];  // column lane / 4, words lane % 4 of each core matrix
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    __syncthreads();
  }
  for (int i = 0; i < 4; ++i) {
    by_wgmma[t * 4 + i] = d[i];
    by_mma[t * 4 + i] = c[i];
  }
#endif
}

__global__ void dependent() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("griddepcontrol.launch_dependents;\n\tgriddepcontrol.wait;" ::: "memory");
#endif
}

void compare_products(json::object& found) {
  constexpr size_t kOut = kThreads * 4;
  std::mt19937 random(7);
  int64_t differ = 0;
  double worst = 0;
  for (int round = 0; round < kRounds; ++round) {
    const auto words = [&](size_t count) {
      std::vector<uint32_t> packed(count);
      const std::vector<Bf16> numbers = random_numbers<Bf16>(2 * count, random);
      std::memcpy(packed.data(), numbers.data(), 4 * count);
      return packed;
    };
    const DeviceArray<uint32_t> a(words(kSteps * kThreads * 4)), b(words(kSteps * 64));
    const DeviceArray<float> wgmma(kOut), mma(kOut);
    multiply_both<<<1, kThreads>>>(a.data(), b.data(), wgmma.data(), mma.data());
    CUDA_CHECK(cudaGetLastError());
    const std::vector<float> left = wgmma.download(), right = mma.download();
    for (size_t i = 0; i < kOut; ++i) {
      differ += std::memcmp(&left[i], &right[i], sizeof(float)) != 0;
      worst = std::max(worst, std::abs(double{left[i]} - right[i]));
    }
  }
  found["rounds"] = kRounds;
  found["values"] = static_cast<int64_t>(kRounds * kOut);
  found["bits_differ"] = differ;
  found["worst_difference"] = worst;  // beyond 1e-3: a layout is wrong, and the bits say nothing
}

// Microseconds from one empty kernel to the next in a graph of 200.
double gap_us(bool is_dependent) {
  constexpr int kKernels = 200, kReplays = 20;
  const cuda::OwnedStream owned;
  const auto stream = static_cast<cudaStream_t>(static_cast<simt::Stream>(owned));
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(1);
  config.blockDim = dim3(32);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = is_dependent ? 1 : 0;
  CUDA_CHECK(cudaLaunchKernelEx(&config, dependent));  // loads it
  cuda::begin_capture(owned);
  for (int i = 0; i < kKernels; ++i) CUDA_CHECK(cudaLaunchKernelEx(&config, dependent));
  const cuda::Graph graph = cuda::end_capture(owned);
  const cuda::Event begin = cuda::create_timing_event(), end = cuda::create_timing_event();
  cuda::launch_graph(graph, owned);
  cuda::record(begin, owned);
  for (int i = 0; i < kReplays; ++i) cuda::launch_graph(graph, owned);
  cuda::record(end, owned);
  cuda::wait(end);
  const double us = 1e3 * cuda::elapsed_ms(begin, end) / (kKernels * kReplays);
  cuda::destroy_event(begin);
  cuda::destroy_event(end);
  cuda::destroy_graph(graph);
  return us;
}

}  // namespace

json::object probe_hopper() {
  if (cuda::device_properties().compute_capability != 90) return {{"problem", "wgmma is of compute capability 9.0 alone"}};
  json::object found;
  compare_products(found);
  found["gap_us"] = gap_us(false);
  found["dependent_gap_us"] = gap_us(true);
  return found;
}

}  // namespace serval::gpu
