#include "tests/kernels/checks/fragment_kernels.h"

#include "kernels/cuda/ptx.h"
#include "kernels/cuda/simt.h"

namespace serval::gpu {
namespace {

using namespace cuda;

constexpr int kThreads = 128;
constexpr int kPerThread = 64;

SERVAL_KERNEL void load_numbered(uint32_t* plain, uint32_t* transposed) {
  simt::SharedMemory memory;
  const simt::Shared<uint16_t> matrices = memory.take<uint16_t>(4 * 64);
  const int lane = simt::lane();
  for (int i = lane; i < 4 * 64; i += simt::kWarp) matrices.set(i, static_cast<uint16_t>(i));
  simt::sync_warp();
  uint32_t registers[4];
  load_matrix_x4(matrices, lane * 8, registers);
  for (int i = 0; i < 4; ++i) plain[lane * 4 + i] = registers[i];
  load_matrix_x4_transposed(matrices, lane * 8, registers);
  for (int i = 0; i < 4; ++i) transposed[lane * 4 + i] = registers[i];
}

template <ProductKind kind>
SERVAL_DEVICE uint32_t element_bits(int value) {
  if constexpr (kind == ProductKind::kBf16) return from_float<Bf16>(static_cast<float>(value)).bits;
  if constexpr (kind == ProductKind::kHalf) return from_float<Half>(static_cast<float>(value)).bits;
  if constexpr (kind == ProductKind::kFp8) return fp8_from_float(static_cast<float>(value)).bits;
  if constexpr (kind == ProductKind::kInt8) return static_cast<uint32_t>(value);
}

// A block for each element of a.
template <ProductKind kind>
SERVAL_KERNEL void multiply_unit(int digit, float* sums) {
  constexpr int kElements = elements_per_word(kind), kBits = 32 / kElements;
  const int lane = simt::lane(), one = simt::block_x();
  uint32_t a[4], b[2];
  SERVAL_UNROLL
  for (int r = 0; r < 4; ++r) {
    a[r] = 0;
    SERVAL_UNROLL
    for (int j = 0; j < kElements; ++j) {
      const int index = (lane * 4 + r) * kElements + j;
      a[r] |= element_bits<kind>(index == one ? 1 : 0) << (kBits * j);
    }
  }
  SERVAL_UNROLL
  for (int r = 0; r < 2; ++r) {
    b[r] = 0;
    SERVAL_UNROLL
    for (int j = 0; j < kElements; ++j) {
      const int index = (lane * 2 + r) * kElements + j;
      b[r] |= element_bits<kind>(1 + (digit == 0 ? index % 16 : index / 16)) << (kBits * j);
    }
  }
  float* const to = sums + (one * simt::kWarp + lane) * 4;
  if constexpr (kind == ProductKind::kInt8) {
    int32_t c[4] = {0, 0, 0, 0};
    mma_m16n8k32_int8(c, a, b);
    SERVAL_UNROLL
    for (int i = 0; i < 4; ++i) to[i] = static_cast<float>(c[i]);
  } else {
    float c[4] = {0, 0, 0, 0};
    if constexpr (kind == ProductKind::kBf16) mma_m16n8k16<Bf16>(c, a, b);
    if constexpr (kind == ProductKind::kHalf) mma_m16n8k16<Half>(c, a, b);
    if constexpr (kind == ProductKind::kFp8) mma_m16n8k32_fp8(c, a, b);
    SERVAL_UNROLL
    for (int i = 0; i < 4; ++i) to[i] = c[i];
  }
}

SERVAL_DEVICE int first_value() {
  return (simt::block_x() * kThreads + simt::thread()) * kPerThread;
}

SERVAL_KERNEL void widen_kernel(uint32_t* of_bf16, uint32_t* of_half, uint32_t* of_fp8) {
  for (int i = first_value(); i < first_value() + kPerThread && i < 65536; ++i) {
    of_bf16[i] = bits_of(to_float(Bf16{static_cast<uint16_t>(i)}));
    of_half[i] = bits_of(to_float(Half{static_cast<uint16_t>(i)}));
    if (i < 256) of_fp8[i] = bits_of(to_float(Fp8{static_cast<uint8_t>(i)}));
  }
}

SERVAL_DEVICE float narrowed_float(int i) {
  // Just below and above a tie of each format, ties themselves, and nothing.
  constexpr uint32_t kLower[8] = {0, 1, 0x1000, 0x1001, 0x3000, 0x7fff, 0x8000, 0x8001};
  return float_of(static_cast<uint32_t>(i / 8) << 16 | kLower[i % 8]);
}

SERVAL_KERNEL void narrow_kernel(uint16_t* to_bf16, uint16_t* to_half, uint8_t* to_fp8) {
  for (int i = first_value(); i < first_value() + kPerThread && i < kNarrowed; ++i) {
    const float value = narrowed_float(i);
    to_bf16[i] = from_float<Bf16>(value).bits;
    to_half[i] = from_float<Half>(value).bits;
    to_fp8[i] = fp8_from_float(value).bits;
  }
}

SERVAL_KERNEL void exponentiate_kernel(const float* in, float* out, int count) {
  for (int i = first_value(); i < first_value() + kPerThread && i < count; ++i) out[i] = exp2_fast(in[i]);
}

simt::LaunchShape shape_of(int values) {
  constexpr int kPerBlock = kThreads * kPerThread;
  return {.grid_x = (values + kPerBlock - 1) / kPerBlock, .threads = kThreads};
}

template <ProductKind kind>
void multiply(simt::Stream stream, int digit, float* sums) {
  simt::launch<multiply_unit<kind>>(stream, {.grid_x = a_elements(kind)}, digit, sums);
}

}  // namespace

void load_numbered_matrices(simt::Stream stream, uint32_t* plain, uint32_t* transposed) {
  simt::launch<load_numbered>(stream, {.shared_bytes = 4 * 64 * sizeof(uint16_t)}, plain, transposed);
}

void multiply_units(simt::Stream stream, ProductKind kind, int digit, float* sums) {
  switch (kind) {
    case ProductKind::kBf16:
      return multiply<ProductKind::kBf16>(stream, digit, sums);
    case ProductKind::kHalf:
      return multiply<ProductKind::kHalf>(stream, digit, sums);
    case ProductKind::kFp8:
      return multiply<ProductKind::kFp8>(stream, digit, sums);
    case ProductKind::kInt8:
      return multiply<ProductKind::kInt8>(stream, digit, sums);
  }
}

void widen_all(simt::Stream stream, uint32_t* of_bf16, uint32_t* of_half, uint32_t* of_fp8) {
  simt::launch<widen_kernel>(stream, shape_of(65536), of_bf16, of_half, of_fp8);
}

void narrow_all(simt::Stream stream, uint16_t* to_bf16, uint16_t* to_half, uint8_t* to_fp8) {
  simt::launch<narrow_kernel>(stream, shape_of(kNarrowed), to_bf16, to_half, to_fp8);
}

void exponentiate(simt::Stream stream, const float* in, float* out, int count) {
  simt::launch<exponentiate_kernel>(stream, shape_of(count), in, out, count);
}

}  // namespace serval::gpu
