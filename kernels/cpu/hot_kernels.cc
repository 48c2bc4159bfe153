// The inner loops, compiled once per instruction set: CMake gives each copy its flags and names its table in
// SERVAL_TABLE. Nothing here may be visible to another copy but that table.
#include "kernels/cpu/hot_attention.h"
#include "kernels/cpu/hot_kept.h"
#include "kernels/cpu/hot_linear.h"
#include "kernels/cpu/hot_rows.h"
#include "kernels/cpu/hot_sample.h"
#include "kernels/cpu/hot_state.h"
#include "kernels/cpu/kernel_table.h"

namespace serval::cpu {
namespace {

constexpr int kChains = 12;  // more than latency times width of any core

int64_t peak_f32(int64_t iterations) {
  Vec acc[kChains] = {};
  Vec a = broadcast(0.9999f), b = broadcast(0.0001f);
  asm volatile("" : "+x"(a), "+x"(b));
  for (int64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) {
      acc[i] = fma(acc[i], a, b);
      asm volatile("" : "+x"(acc[i]));
    }
  }
  return iterations * kChains * kLanes * 2;
}

#if defined(__AVX512BF16__)
int64_t peak_bf16(int64_t iterations) {
  Vec acc[kChains] = {};
  IntVec a = IntVec{} + 0x3f803f80;
  asm volatile("" : "+x"(a));
  for (int64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) {
      acc[i] = _mm512_dpbf16_ps(acc[i], (__m512bh)a, (__m512bh)a);
      asm volatile("" : "+x"(acc[i]));
    }
  }
  return iterations * kChains * kLanes * 4;
}
using Bf16Format = Bf16DotFormat;
using Int8Format = Int8DotFormat;
constexpr auto kPeakBf16 = peak_bf16;
#else
using Bf16Format = FmaFormat<Bf16Weights>;
using Int8Format = FmaFormat<Int8Weights>;
constexpr int64_t (*kPeakBf16)(int64_t) = nullptr;
#endif

int32_t read_all(const void* memory, int64_t bytes) {
  constexpr int kSums = 4;
  IntVec sums[kSums] = {};
  const auto* p = static_cast<const char*>(memory);
  for (int64_t i = 0; i < bytes; i += kSums * static_cast<int64_t>(sizeof(IntVec))) {
#pragma GCC unroll 4
    for (int j = 0; j < kSums; ++j) sums[j] ^= load_ints(p + i + j * sizeof(IntVec));
  }
  const IntVec all = (sums[0] ^ sums[1]) ^ (sums[2] ^ sums[3]);
  int32_t result = 0;
  for (int i = 0; i < kLanes; ++i) result ^= all[i];
  return result;
}

}  // namespace

#define SERVAL_STRING_OF(x) #x
#define SERVAL_STRING(x) SERVAL_STRING_OF(x)

extern const KernelTable SERVAL_TABLE;
const KernelTable SERVAL_TABLE = {
    .name = SERVAL_STRING(SERVAL_ISA),
    .linear = {linear_kernel<FmaFormat<F32Weights>>(), linear_kernel<FmaFormat<F16Weights>>(),
               linear_kernel<Bf16Format>(), linear_kernel<Int8Format>(), linear_kernel<GroupFormat<Int8Codes>>(),
               linear_kernel<GroupFormat<Int4Codes>>(), linear_kernel<GroupFormat<Table4Codes>>(),
               linear_kernel<GroupFormat<Fp8Codes>>(), linear_kernel<GroupFormat<Fp6Codes>>()},
    .attend_f32 = attend<F32Kv>,
    .attend_bf16 = attend<Bf16Kv>,
    .attend_fp8 = attend<Fp8Kv>,
    .attend_int8 = attend<Int8Kv>,
    .attend_int4 = attend<Int4Kv>,
    .index_f32 = index_scores<F32Kv>,
    .index_bf16 = index_scores<Bf16Kv>,
    .index_fp8 = index_scores<Fp8Kv>,
    .attend_rows = attend_rows,
    .index_rows = index_rows,
    .compress_rows = compress_rows,
    .merge_chunks = merge_chunks,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .gate = {gate_row<silu>, gate_row<gelu_tanh>, gate_row<gelu>, gate_row<relu>,
             gate_row<relu2>, gate_row<gelu_sigmoid>, gate_row<sigmoid>, gate_row<identity>},
    .activate = {activate_row<silu>, activate_row<gelu_tanh>, activate_row<gelu>, activate_row<relu>,
                 activate_row<relu2>, activate_row<gelu_sigmoid>, activate_row<sigmoid>, activate_row<identity>},
    .weighted_sum = weighted_sum,
    .scaled_add = scaled_add,
    .soft_cap = soft_cap,
    .mix_streams = mix_streams_row,
    .correct_streams = correct_streams_row,
    .match_size = match_size_row,
    .expand_residuals = expand_residuals_row,
    .cut_row = cut_row,
    .xielu = xielu_row,
    .clamp = clamp,
    .rotate = rotate,
    .rotate_neighbours = rotate_neighbours,
    .causal_conv = causal_conv,
    .selective_scan = selective_scan,
    .gated_scan = gated_scan,
    .mean_scan = mean_scan,
    .replacing_scan = replacing_scan,
    .linear_scan = linear_scan,
    .decay_row = decay_row,
    .sample = {.scan = scan_logits,
               .sum_of_exp = sum_of_exp,
               .exp_block = exp_block,
               .probable = probable_tokens,
               .race = race_entrants,
               .count_larger = count_larger,
               .penalise = penalise_tokens},
    .exp = exp_row,
    .peak_f32 = peak_f32,
    .peak_bf16 = kPeakBf16,
    .read_all = read_all,
};

}  // namespace serval::cpu
