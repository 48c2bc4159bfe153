#include "loadtest/gpu/micro_kernels.h"

#include "kernels/cuda/ptx.h"
#include "kernels/cuda/simt.h"

namespace serval::gpu {
namespace {

using namespace cuda;

constexpr int kReadThreads = 512;
constexpr int kInFlight = 8;  // independent loads of a thread

SERVAL_KERNEL void read_kernel(const Bytes16* from, int64_t count, uint32_t* sums) {
  uint32_t sum = 0;
  const int64_t stride = int64_t{simt::grid_x()} * kReadThreads;
  int64_t i = int64_t{simt::block_x()} * kReadThreads + simt::thread();
  for (; i + (kInFlight - 1) * stride < count; i += kInFlight * stride) {
    Bytes16 read[kInFlight];
    SERVAL_UNROLL
    for (int j = 0; j < kInFlight; ++j) read[j] = load_streaming(from + i + j * stride);
    SERVAL_UNROLL
    for (int j = 0; j < kInFlight; ++j) sum ^= read[j].word[0] ^ read[j].word[1] ^ read[j].word[2] ^ read[j].word[3];
  }
  for (; i < count; i += stride) {
    const Bytes16 read = load_streaming(from + i);
    sum ^= read.word[0] ^ read.word[1] ^ read.word[2] ^ read.word[3];
  }
  for (int mask = simt::kWarp / 2; mask > 0; mask /= 2) sum ^= simt::shuffle_xor(sum, mask);
  if (simt::lane() == 0) simt::atomic_add(sums + simt::block_x(), sum);
}

SERVAL_KERNEL void nothing_kernel() {}

SERVAL_KERNEL void product_kernel(int rounds, float* sums) {
  const auto seed = static_cast<uint32_t>(simt::thread());
  uint32_t a[4], b[2];
  SERVAL_UNROLL
  for (int i = 0; i < 4; ++i) a[i] = 0x3f803f80u ^ (seed + i) % 7;  // near one: sums stay finite
  SERVAL_UNROLL
  for (int i = 0; i < 2; ++i) b[i] = 0x3a803a80u ^ (seed + i) % 5;
  float c[kProductsPerRound][4] = {};
  SERVAL_NO_UNROLL
  for (int round = 0; round < rounds; ++round) {
    SERVAL_UNROLL
    for (int p = 0; p < kProductsPerRound; ++p) mma_m16n8k16<Bf16>(c[p], a, b);
  }
  float sum = 0;
  SERVAL_UNROLL
  for (int p = 0; p < kProductsPerRound; ++p) sum += c[p][0] + c[p][1] + c[p][2] + c[p][3];
  sums[simt::block_x() * kProductThreads + simt::thread()] = sum;
}

}  // namespace

void read_once(simt::Stream stream, const void* from, int64_t bytes, uint32_t* sums) {
  simt::launch<read_kernel>(stream, {.grid_x = kReadBlocks, .threads = kReadThreads}, static_cast<const Bytes16*>(from),
                            bytes / static_cast<int64_t>(sizeof(Bytes16)), sums);
}

void do_nothing(simt::Stream stream) {
  simt::launch<nothing_kernel>(stream, {.grid_x = 1, .threads = simt::kWarp});
}

void multiply_registers(simt::Stream stream, int blocks, int rounds, float* sums) {
  simt::launch<product_kernel>(stream, {.grid_x = blocks, .threads = kProductThreads}, rounds, sums);
}

}  // namespace serval::gpu
