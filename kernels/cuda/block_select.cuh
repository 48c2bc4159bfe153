// What a block does together over values that its threads bring: reductions, and the exact selection of the
// largest keys by count or by weight. Everything is a maximum, a minimum or a sum of integers, so a result
// depends neither on which thread brought what nor on the order of atomic operations. Knows nothing of
// sampling.
#pragma once

#include <cstdint>

#include "kernels/cuda/number.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/simt.h"

namespace serval::cuda {

inline constexpr int kMaxSelectThreads = 512;  // of a block; a power of two, at least a warp
inline constexpr int kMaxSelectWarps = kMaxSelectThreads / simt::kWarp;

// --- keys: a value and its token as one integer that sorts as (value, then lowest id first) downwards ---

inline constexpr int kIdBits = 22;
inline constexpr int64_t kMaxIds = int64_t{1} << kIdBits;
inline constexpr int kKeyBits = 32 + kIdBits;

SERVAL_DEVICE uint64_t make_key(uint32_t value, int32_t id) {
  return uint64_t{value} << kIdBits | static_cast<uint64_t>(kMaxIds - 1 - id);
}
SERVAL_DEVICE uint32_t key_value(uint64_t key) {
  return static_cast<uint32_t>(key >> kIdBits);
}
SERVAL_DEVICE int32_t key_id(uint64_t key) {
  return static_cast<int32_t>(kMaxIds - 1) - static_cast<int32_t>(key & (kMaxIds - 1));
}

// A float as an integer of the same order; -0 is 0, not-a-number has no place.
SERVAL_DEVICE uint32_t ordered_bits(float value) {
  const uint32_t bits = value == 0 ? 0u : bits_of(value);
  return bits ^ (bits >> 31 != 0 ? 0xffffffffu : 0x80000000u);
}
SERVAL_DEVICE float float_of_ordered(uint32_t bits) {
  return float_of(bits ^ (bits >> 31 != 0 ? 0x80000000u : 0xffffffffu));
}

// --- the block ---

inline constexpr int kDigitBits = 11;
inline constexpr int kBins = 1 << kDigitBits;
inline constexpr int kBinsPerVector = 4;
static_assert(kBins / kMaxSelectThreads % kBinsPerVector == 0, "a thread's bins are read as vectors");

// A block's shared memory for the steps below. No barrier follows its construction: a reduction must come
// before the first selection.
struct BlockSpace {
  // Sums of 64 bits as two words, since 32 bits are what shared memory adds at once. Zero between selections.
  simt::Shared<uint32_t> low, high;    // [kBins]
  simt::Shared<uint64_t> warp_values;  // [kMaxSelectWarps]
  simt::Shared<uint64_t> cut;          // [3]

  static constexpr int kBytes = 2 * kBins * 4 + kMaxSelectWarps * 8 + 4 * 8;
  SERVAL_DEVICE explicit BlockSpace(simt::SharedMemory& memory)
      : low(memory.take<uint32_t>(kBins)),
        high(memory.take<uint32_t>(kBins)),
        warp_values(memory.take<uint64_t>(kMaxSelectWarps)),
        cut(memory.take<uint64_t>(3)) {
    for (int i = kBinsPerVector * simt::thread(); i < kBins; i += kBinsPerVector * simt::num_threads()) {
      low.store(i, Bytes16{});
      high.store(i, Bytes16{});
    }
  }
};

// combine() over all threads' values, for every thread.
template <class Combine>
SERVAL_DEVICE uint64_t block_reduce(uint64_t value, const BlockSpace& space, const Combine& combine) {
  SERVAL_UNROLL
  for (int mask = simt::kWarp / 2; mask > 0; mask /= 2)
    value = combine(value, simt::shuffle_xor(value, mask));
  if (simt::lane() == 0) space.warp_values.set(simt::warp(), value);
  simt::sync_block();
  uint64_t all = space.warp_values.get(0);
  SERVAL_UNROLL
  for (int w = 1; w < kMaxSelectWarps; ++w)
    if (w * simt::kWarp < simt::num_threads()) all = combine(all, space.warp_values.get(w));
  simt::sync_block();
  return all;
}
SERVAL_DEVICE uint64_t block_max(uint64_t value, const BlockSpace& space) {
  return block_reduce(value, space, [](uint64_t a, uint64_t b) { return a > b ? a : b; });
}
SERVAL_DEVICE uint64_t block_min(uint64_t value, const BlockSpace& space) {
  return block_reduce(value, space, [](uint64_t a, uint64_t b) { return a < b ? a : b; });
}
SERVAL_DEVICE uint64_t block_total(uint64_t value, const BlockSpace& space) {
  return block_reduce(value, space, [](uint64_t a, uint64_t b) { return a + b; });
}

// --- selection ---

SERVAL_DEVICE void add_to_bin(const BlockSpace& space, int bin, uint64_t weight) {
  if (weight == 0) return;
  const auto low = static_cast<uint32_t>(weight);
  const uint32_t before = space.low.atomic_add(bin, low);
  const bool carries = before + low < before;  // in exactly one of the additions that wrap around
  const uint32_t high = static_cast<uint32_t>(weight >> 32) + carries;
  if (high != 0) space.high.atomic_add(bin, high);
}

struct Cut {
  uint32_t bin;
  uint64_t weight;  // of the bin
  uint64_t need;    // what the bins above leave to find in it
};

// The first bin from the top at which the running sum reaches `need`; every bin is zero afterwards.
SERVAL_DEVICE Cut cut_bins(const BlockSpace& space, uint64_t need) {
  // A thread's bins, so that the sum runs down over bins as it runs up over threads.
  const int num_own = kBins / simt::num_threads();
  const int first = kBins - num_own * (simt::thread() + 1);
  uint64_t mine = 0;
  for (int i = first; i < first + num_own; i += kBinsPerVector) {
    const auto low = space.low.load<Bytes16>(i), high = space.high.load<Bytes16>(i);
    SERVAL_UNROLL
    for (int j = 0; j < kBinsPerVector; ++j) mine += uint64_t{high.word[j]} << 32 | low.word[j];
  }
  uint64_t sum = mine;  // over this lane and those before it
  SERVAL_UNROLL
  for (int distance = 1; distance < simt::kWarp; distance *= 2) {
    const uint64_t before = simt::shuffle(sum, simt::lane() - distance);
    if (simt::lane() >= distance) sum += before;
  }
  if (simt::lane() == simt::kWarp - 1) space.warp_values.set(simt::warp(), sum);
  simt::sync_block();
  uint64_t above = sum - mine;
  for (int w = 0; w < simt::warp(); ++w) above += space.warp_values.get(w);
  if (above < need && need <= above + mine) {
    int bin = first + num_own;
    uint64_t weight = 0;
    while (above + weight < need) {
      above += weight;
      --bin;
      weight = uint64_t{space.high.get(bin)} << 32 | space.low.get(bin);
    }
    space.cut.set(0, static_cast<uint64_t>(bin));
    space.cut.set(1, weight);
    space.cut.set(2, need - above);
  }
  if (mine != 0) {
    for (int i = first; i < first + num_own; i += kBinsPerVector) {
      space.low.store(i, Bytes16{});
      space.high.store(i, Bytes16{});
    }
  }
  simt::sync_block();
  return {static_cast<uint32_t>(space.cut.get(0)), space.cut.get(1), space.cut.get(2)};
}

// The shortest run of keys, largest first, whose weights add up to `need`: they are the keys at or above what
// is returned. for_each(visit) calls visit(key) for this thread's keys, which differ from all others; 0 <
// need <= the weight of all. Radix selection from the top digit down: one walk over the keys for each digit,
// ended when a bin is taken whole.
template <class ForEach, class Weight>
SERVAL_DEVICE uint64_t select_largest(const BlockSpace& space, uint64_t need, const ForEach& for_each,
                                      const Weight& weight) {
  constexpr int kTopShift = (kKeyBits - 1) / kDigitBits * kDigitBits;
  uint64_t prefix = 0;
  int shift = kTopShift;
  while (true) {
    for_each([&](uint64_t key) {
      if (key >> (shift + kDigitBits) == prefix)
        add_to_bin(space, static_cast<int>(key >> shift & (kBins - 1)), weight(key));
    });
    simt::sync_block();
    const Cut cut = cut_bins(space, need);
    prefix = prefix << kDigitBits | cut.bin;
    if (shift == 0 || cut.need == cut.weight) return prefix << shift;
    need = cut.need;
    shift -= kDigitBits;
  }
}

// A thread's own keys, in global memory where the threads of a block lie interleaved; nobody else reads them.
class OwnKeys {
 public:
  // What a block of `threads` needs for `count` elements of a row, however for_row() spreads them.
  SERVAL_HOST_DEVICE static constexpr int64_t capacity(int64_t count, int threads) {
    return ((count + 4 * threads - 1) / (4 * threads) * 4 + 2) * threads;
  }
  SERVAL_DEVICE explicit OwnKeys(uint64_t* memory) : memory_(memory + simt::thread()) {}

  SERVAL_DEVICE void push(uint64_t key) { memory_[int64_t{count_++} * simt::num_threads()] = key; }
  template <class Visit>
  SERVAL_DEVICE void for_each(const Visit& visit) const {
    for (int i = 0; i < count_; ++i) visit(memory_[int64_t{i} * simt::num_threads()]);
  }
  template <class Change>
  SERVAL_DEVICE void change_each(const Change& change) {
    for (int i = 0; i < count_; ++i) {
      uint64_t& key = memory_[int64_t{i} * simt::num_threads()];
      key = change(key);
    }
  }

 private:
  uint64_t* memory_;
  int count_ = 0;
};

// --- a row of floats in global memory ---

struct alignas(16) Floats4 {
  float value[4];
};

// Calls visit(i, row[i]) for all elements, each in one thread, a thread's in ascending order; 16 bytes at a
// time between the row's unaligned ends.
template <class Visit>
SERVAL_DEVICE void for_row(const float* row, int size, const Visit& visit) {
  constexpr int kAhead = 4;  // vectors under way in a thread
  const int t = simt::thread(), threads = simt::num_threads();
  const int to_boundary = static_cast<int>((16 - reinterpret_cast<uintptr_t>(row) % 16) % 16 / sizeof(float));
  const int head = to_boundary < size ? to_boundary : size;
  const int num_vectors = (size - head) / 4;
  const auto* const vectors = reinterpret_cast<const Floats4*>(row + head);
  const auto visit_vector = [&](int v, const Floats4& x) {
    SERVAL_UNROLL
    for (int j = 0; j < 4; ++j) visit(head + 4 * v + j, x.value[j]);
  };
  if (t < head) visit(t, row[t]);
  int v = t;
  for (; v + (kAhead - 1) * threads < num_vectors; v += kAhead * threads) {
    Floats4 x[kAhead];
    SERVAL_UNROLL
    for (int a = 0; a < kAhead; ++a) x[a] = vectors[v + a * threads];
    SERVAL_UNROLL
    for (int a = 0; a < kAhead; ++a) visit_vector(v + a * threads, x[a]);
  }
  for (; v < num_vectors; v += threads) visit_vector(v, vectors[v]);
  const int tail = head + 4 * num_vectors + t;
  if (tail < size) visit(tail, row[tail]);
}

}  // namespace serval::cuda
