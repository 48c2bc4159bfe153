// The emulation itself: a correct kernel passes under every schedule, and each kind of mistake is reported.
#include "kernels/emulation/emulation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/ptx.h"
#include "kernels/cuda/simt.h"

namespace serval::cuda {
namespace {

using simt::Shared;
using simt::SharedMemory;

enum class Mistake { kNone, kNoFirstBarrier, kNoSecondBarrier, kBeyondTheEnd, kUnevenBarrier };

// Reverses each run of 64 numbers, twice, through shared memory.
template <Mistake mistake>
SERVAL_KERNEL void reverse_twice(const int32_t* in, int32_t* out) {
  SharedMemory memory;
  const Shared<int32_t> row = memory.take<int32_t>(64);
  const int t = simt::thread(), at = simt::block_x() * 64 + t;
  row.set(t, in[at]);
  if (mistake != Mistake::kNoFirstBarrier) simt::sync_block();
  const int32_t mirrored = row.get(mistake == Mistake::kBeyondTheEnd ? 64 - t : 63 - t);
  if (mistake == Mistake::kUnevenBarrier && t == 5) return;
  if (mistake != Mistake::kNoSecondBarrier) simt::sync_block();
  row.set(t, mirrored);
  simt::sync_block();
  out[at] = row.get(63 - t);
}

template <Mistake mistake>
std::string run_reverse() {
  std::vector<int32_t> in(256), out(256, -1);
  for (int i = 0; i < 256; ++i) in[i] = i * i;
  try {
    simt::launch<reverse_twice<mistake>>(nullptr, {.grid_x = 4, .threads = 64, .shared_bytes = 256},
                                         in.data(), out.data());
  } catch (const simt::Violation& violation) {
    return violation.what();
  }
  return in == out ? "right" : "wrong";
}

class Emulation : public testing::TestWithParam<uint64_t> {
 protected:
  void SetUp() override { simt::set_schedule_seed(GetParam()); }
  void TearDown() override { simt::set_schedule_seed(0); }
};
INSTANTIATE_TEST_SUITE_P(Schedules, Emulation, testing::Values(0, 1, 2, 3));

TEST_P(Emulation, RunsACorrectKernelRight) {
  EXPECT_EQ(run_reverse<Mistake::kNone>(), "right");
}
TEST_P(Emulation, ReportsAReadThatNoBarrierSeparatesFromItsWrite) {
  EXPECT_THAT(run_reverse<Mistake::kNoFirstBarrier>(),
              testing::AnyOf(testing::HasSubstr("race"), testing::HasSubstr("nobody wrote")));
}
TEST_P(Emulation, ReportsAWriteThatNoBarrierSeparatesFromARead) {
  EXPECT_THAT(run_reverse<Mistake::kNoSecondBarrier>(), testing::HasSubstr("race"));
}
// Of two blocks the first writes and the second reads.
SERVAL_KERNEL void write_or_read(int first_block, int32_t* out) {
  SharedMemory memory;
  const Shared<int32_t> row = memory.take<int32_t>(32);
  if (first_block + simt::block_x() == 0) {
    row.set(simt::thread(), 1);
  } else {
    out[simt::thread()] = row.get(simt::thread());
  }
}

TEST_P(Emulation, ForgetsWhatAnotherBlockWrote) {
  std::vector<int32_t> out(32);
  const auto run = [&](int num_blocks, int first_block) -> std::string {
    try {
      simt::launch<write_or_read>(nullptr, {.grid_x = num_blocks, .threads = 32, .shared_bytes = 128}, first_block, out.data());
    } catch (const simt::Violation& violation) {
      return violation.what();
    }
    return "right";
  };
  EXPECT_THAT(run(2, 0), testing::HasSubstr("nobody wrote"));
  EXPECT_EQ(run(1, 0), "right");
  EXPECT_THAT(run(1, 1), testing::HasSubstr("nobody wrote")) << "nor in another launch";
}
TEST_P(Emulation, ReportsAnAccessBeyondTheSharedArray) {
  EXPECT_THAT(run_reverse<Mistake::kBeyondTheEnd>(), testing::HasSubstr("shared element 64"));
}
TEST_P(Emulation, ReportsABarrierThatNotEveryThreadReaches) {
  EXPECT_THAT(run_reverse<Mistake::kUnevenBarrier>(), testing::HasSubstr("without reaching it"));
}

enum class CopyMistake { kNone, kNoWait, kWaitForTooFew, kNoBarrier };

// Copies two rows asynchronously, then every thread reads what another thread's copy brought.
template <CopyMistake mistake>
SERVAL_KERNEL void copy_rows(const float* in, float* out) {
  SharedMemory memory;
  const Shared<float> rows = memory.take<float>(2 * 32 * 4);
  const int t = simt::thread();
  for (int r = 0; r < 2; ++r) {
    copy_async16(rows, (r * 32 + t) * 4, in + (r * 32 + t) * 4);
    copy_async_commit();
  }
  if (mistake != CopyMistake::kNoWait) copy_async_wait<mistake == CopyMistake::kWaitForTooFew ? 1 : 0>();
  if (mistake != CopyMistake::kNoBarrier) simt::sync_block();
  for (int r = 0; r < 2; ++r) out[r * 32 + t] = rows.get((r * 32 + 31 - t) * 4);
  if (mistake != CopyMistake::kNone) copy_async_wait<0>();
}

template <CopyMistake mistake>
std::string run_copy() {
  std::vector<float> in(256), out(64, -1), want(64);
  for (int i = 0; i < 256; ++i) in[i] = static_cast<float>(i);
  for (int r = 0; r < 2; ++r)
    for (int t = 0; t < 32; ++t) want[r * 32 + t] = in[(r * 32 + 31 - t) * 4];
  try {
    simt::launch<copy_rows<mistake>>(nullptr, {.threads = 32, .shared_bytes = 1024}, in.data(), out.data());
  } catch (const simt::Violation& violation) {
    return violation.what();
  }
  return out == want ? "right" : "wrong";
}

TEST_P(Emulation, LandsAsynchronousCopiesWhenTheyAreWaitedFor) {
  EXPECT_EQ(run_copy<CopyMistake::kNone>(), "right");
}
TEST_P(Emulation, ReportsAReadOfACopyThatWasNotWaitedFor) {
  EXPECT_THAT(run_copy<CopyMistake::kNoWait>(),
              testing::HasSubstr("before its asynchronous copy was waited for"));
  EXPECT_THAT(run_copy<CopyMistake::kWaitForTooFew>(),
              testing::HasSubstr("before its asynchronous copy was waited for"));
}
TEST_P(Emulation, ReportsThatAnotherThreadsCopyNeedsABarrierToo) {
  EXPECT_THAT(run_copy<CopyMistake::kNoBarrier>(),
              testing::AnyOf(testing::HasSubstr("race"), testing::HasSubstr("waited for"),
                             testing::HasSubstr("nobody wrote")));
}

template <bool has_fence>
SERVAL_KERNEL void rotate_in_warp(int32_t* values) {
  SharedMemory memory;
  const Shared<int32_t> row = memory.take<int32_t>(64);
  const int t = simt::thread();
  row.set(t, values[t]);
  if (has_fence) simt::sync_warp();
  values[t] = row.get(simt::warp() * 32 + (simt::lane() + 1) % 32);
}

TEST_P(Emulation, OrdersAWarpsAccessesByItsWarpBarrier) {
  std::vector<int32_t> values(64);
  for (int i = 0; i < 64; ++i) values[i] = i;
  simt::launch<rotate_in_warp<true>>(nullptr, {.threads = 64, .shared_bytes = 256}, values.data());
  for (int i = 0; i < 64; ++i) EXPECT_EQ(values[i], i / 32 * 32 + (i + 1) % 32);
  EXPECT_THROW(
      simt::launch<rotate_in_warp<false>>(nullptr, {.threads = 64, .shared_bytes = 256}, values.data()),
      simt::Violation);
}

SERVAL_KERNEL void diverge(int32_t* out) {
  if (simt::lane() < 16) {
    out[simt::lane()] = simt::shuffle_xor(simt::lane(), 1);
  } else {
    out[simt::lane()] = static_cast<int32_t>(simt::ballot(true));
  }
}
SERVAL_KERNEL void half_a_warp(int32_t* out) {
  if (simt::lane() < 16) out[simt::lane()] = simt::shuffle_xor(simt::lane(), 1);
}

TEST_P(Emulation, ReportsLanesThatMeetInDifferentExchangesOrNotAtAll) {
  std::vector<int32_t> out(32);
  EXPECT_THROW(simt::launch<diverge>(nullptr, {.threads = 32}, out.data()), simt::Violation);
  EXPECT_THROW(simt::launch<half_a_warp>(nullptr, {.threads = 32}, out.data()), simt::Violation);
}

SERVAL_KERNEL void exchanges(int32_t* out) {
  const int l = simt::lane();
  out[l] = simt::shuffle_xor(l, 5);
  out[32 + l] = simt::shuffle(100 + l, (l + 7) % 32);
  out[64 + l] = static_cast<int32_t>(simt::ballot(l % 3 == 0));
  out[96 + l] = static_cast<int32_t>(simt::warp_sum(static_cast<float>(l)));
}

TEST_P(Emulation, ExchangesValuesBetweenLanes) {
  std::vector<int32_t> out(128);
  simt::launch<exchanges>(nullptr, {.threads = 32}, out.data());
  for (int l = 0; l < 32; ++l) {
    EXPECT_EQ(out[l], l ^ 5);
    EXPECT_EQ(out[32 + l], 100 + (l + 7) % 32);
    EXPECT_EQ(out[64 + l], static_cast<int32_t>(0x49249249u));
    EXPECT_EQ(out[96 + l], 31 * 32 / 2);
  }
}

SERVAL_KERNEL void count_in_shared(int32_t* out) {
  SharedMemory memory;
  const Shared<uint32_t> bins = memory.take<uint32_t>(4);
  if (simt::thread() < 4) bins.set(simt::thread(), 0);
  simt::sync_block();
  bins.atomic_add(simt::thread() % 4, 1u);
  simt::sync_block();
  if (simt::thread() < 4) out[simt::thread()] = static_cast<int32_t>(bins.get(simt::thread()));
}

TEST_P(Emulation, AddsAtomically) {
  std::vector<int32_t> out(4);
  simt::launch<count_in_shared>(nullptr, {.threads = 128, .shared_bytes = 16}, out.data());
  for (const int32_t count : out) EXPECT_EQ(count, 32);
}

// --- matrix products against the definition ---

template <class T>
SERVAL_KERNEL void multiply_16x8x16(const T* a, const T* b, float* c) {
  SharedMemory memory;
  const Shared<T> rows = memory.take<T>(16 * 16), columns = memory.take<T>(16 * 16);
  for (int i = simt::lane(); i < 256; i += 32) rows.set(i, a[i]);     // a [16][16]
  for (int i = simt::lane(); i < 256; i += 32) columns.set(i, b[i]);  // b [16][16], columns 0..7 used
  simt::sync_warp();
  uint32_t fa[4], fb[4];
  const int l = simt::lane();
  // Matrices of a: rows 0-7 | 8-15, then columns 8-15 of the same. Of b: rows 0-7, rows 8-15, twice.
  load_matrix_x4(rows, (l % 16) * 16 + l / 16 * 8, fa);
  load_matrix_x4_transposed(columns, (l % 16) * 16 + l / 16 * 8, fb);
  float sum[4] = {0, 0, 0, 0};
  const uint32_t first_columns[2] = {fb[0], fb[1]};
  mma_m16n8k16<T>(sum, fa, first_columns);
  const int g = l / 4, t = l % 4;
  c[g * 8 + 2 * t] = sum[0];
  c[g * 8 + 2 * t + 1] = sum[1];
  c[(g + 8) * 8 + 2 * t] = sum[2];
  c[(g + 8) * 8 + 2 * t + 1] = sum[3];
}

template <class T>
void expect_product() {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<T> a(256), b(256);
  for (T& v : a) v = from_float<T>(normal(random));
  for (T& v : b) v = from_float<T>(normal(random));
  std::vector<float> c(128);
  simt::launch<multiply_16x8x16<T>>(nullptr, {.threads = 32, .shared_bytes = 1024}, a.data(), b.data(),
                                    c.data());
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      double sum = 0;
      for (int k = 0; k < 16; ++k) sum += double{to_float(a[i * 16 + k])} * double{to_float(b[k * 16 + j])};
      EXPECT_FLOAT_EQ(c[i * 8 + j], static_cast<float>(sum)) << i << ", " << j;
    }
  }
}

TEST_P(Emulation, MultipliesMatricesThroughFragmentsAndMatrixLoads) {
  expect_product<Bf16>();
  expect_product<Half>();
}

// b is given by columns, as m16n8k32 wants four consecutive k of a column in a register.
SERVAL_KERNEL void multiply_bytes(const uint8_t* a, const uint8_t* b_columns, float* fp8, int32_t* int8) {
  const int g = simt::lane() / 4, t = simt::lane() % 4;
  const auto word = [](const uint8_t* p) {
    return static_cast<uint32_t>(p[0] | p[1] << 8 | p[2] << 16) | static_cast<uint32_t>(p[3]) << 24;
  };
  const uint32_t fa[4] = {word(a + g * 32 + 4 * t), word(a + (g + 8) * 32 + 4 * t),
                          word(a + g * 32 + 4 * t + 16), word(a + (g + 8) * 32 + 4 * t + 16)};
  const uint32_t fb[2] = {word(b_columns + g * 32 + 4 * t), word(b_columns + g * 32 + 4 * t + 16)};
  float f[4] = {0, 0, 0, 0};
  int32_t n[4] = {0, 0, 0, 0};
  mma_m16n8k32_fp8(f, fa, fb);
  mma_m16n8k32_int8(n, fa, fb);
  for (int i = 0; i < 4; ++i) {
    const int at = (g + 8 * (i / 2)) * 8 + 2 * t + i % 2;
    fp8[at] = f[i];
    int8[at] = n[i];
  }
}

TEST_P(Emulation, MultipliesBytesAsFp8AndAsIntegers) {
  std::mt19937 random(8);
  std::vector<uint8_t> a(16 * 32), b(8 * 32);
  for (uint8_t& v : a) v = static_cast<uint8_t>(random() % 120 + (random() % 2) * 128);
  for (uint8_t& v : b) v = static_cast<uint8_t>(random() % 120 + (random() % 2) * 128);
  std::vector<float> fp8(128);
  std::vector<int32_t> int8(128);
  simt::launch<multiply_bytes>(nullptr, {.threads = 32}, a.data(), b.data(), fp8.data(), int8.data());
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      double real = 0;
      int32_t whole = 0;
      for (int k = 0; k < 32; ++k) {
        real += double{to_float(Fp8{a[i * 32 + k]})} * double{to_float(Fp8{b[j * 32 + k]})};
        whole += static_cast<int8_t>(a[i * 32 + k]) * static_cast<int8_t>(b[j * 32 + k]);
      }
      EXPECT_FLOAT_EQ(fp8[i * 8 + j], static_cast<float>(real));
      EXPECT_EQ(int8[i * 8 + j], whole);
    }
  }
}

// --- numbers, over every value ---

TEST(Number, EveryFp8IsTheValueItsBitsSay) {
  for (int bits = 0; bits < 256; ++bits) {
    const int exponent = bits >> 3 & 15, mantissa = bits & 7;
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
    const float value = to_float(Fp8{static_cast<uint8_t>(bits)});
    if ((bits & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(value));
    } else {
      EXPECT_EQ(value, static_cast<float>(bits & 0x80 ? -magnitude : magnitude)) << bits;
      EXPECT_EQ(fp8_from_float(value).bits, bits);
    }
  }
}

TEST(Number, Fp8RoundsToTheNearestAndTiesToEven) {
  for (int bits = 0; bits < 0x7e; ++bits) {  // between each number and the next
    const float low = to_float(Fp8{static_cast<uint8_t>(bits)}),
                high = to_float(Fp8{static_cast<uint8_t>(bits + 1)});
    const float middle = (low + high) / 2;
    EXPECT_EQ(fp8_from_float(middle).bits, bits % 2 == 0 ? bits : bits + 1) << middle;
    EXPECT_EQ(fp8_from_float(std::nextafter(middle, low)).bits, bits) << middle;
    EXPECT_EQ(fp8_from_float(std::nextafter(middle, high)).bits, bits + 1) << middle;
    EXPECT_EQ(fp8_from_float(-middle).bits, (bits % 2 == 0 ? bits : bits + 1) | 0x80);
  }
  EXPECT_EQ(fp8_from_float(1e9f).bits, 0x7e);
  EXPECT_EQ(fp8_from_float(-INFINITY).bits, 0xfe);
  EXPECT_EQ(fp8_from_float(NAN).bits & 0x7f, 0x7f);
}

TEST(Number, EverySixteenBitNumberSurvivesAFloat) {
  for (int bits = 0; bits < 65536; ++bits) {
    const Bf16 b{static_cast<uint16_t>(bits)};
    const Half h{static_cast<uint16_t>(bits)};
    if (!std::isnan(to_float(b))) {
      EXPECT_EQ(from_float<Bf16>(to_float(b)).bits, bits);
    }
    if (!std::isnan(to_float(h))) {
      EXPECT_EQ(from_float<Half>(to_float(h)).bits, bits);
    }
  }
  EXPECT_EQ(from_float<Half>(65520.0f).bits, 0x7c00);
  EXPECT_EQ(from_float<Half>(65519.0f).bits, 0x7bff);
  EXPECT_EQ(from_float<Half>(0x1p-25f).bits, 0);        // a tie, to even
  EXPECT_EQ(from_float<Half>(0x1.8p-24f).bits, 2);      // likewise
  EXPECT_EQ(from_float<Bf16>(0x1.01p0f).bits, 0x3f80);  // likewise
}

}  // namespace
}  // namespace serval::cuda
