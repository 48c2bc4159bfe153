#include "kernels/cpu/sample.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "kernels/base/check.h"
#include "kernels/gumbel.h"

namespace serval {
namespace {

// A row is walked in blocks whose maxima are kept: they let every later pass skip the blocks that cannot
// matter to it.
constexpr int kBlock = 64;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

int64_t num_blocks(int64_t vocab) {
  return (vocab + kBlock - 1) / kBlock;
}

// Four lanes and separately rounded operations: the same bits on every instruction set.
using Floats = float __attribute__((vector_size(16)));
using Ints = int32_t __attribute__((vector_size(16)));
constexpr int kLanes = 4;

Floats load(const float* p) {
  Floats v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// Below this e^x leaves the normal range and counts as 0.
constexpr float kExpUnderflow = -87.3f;

// e^x for x <= 0, within 2 units in the last place, exactly 1 at 0: x = n ln 2 + r with ln 2 in two parts
// (Cody and Waite 1980), the Taylor polynomial of degree 7 on |r| <= ln(2)/2 (error below r^8/8! = 6e-9), and
// n added to the exponent.
Floats exp_lanes(Floats x) {
  constexpr float kRoundToInteger = 0x1.8p23f;
  constexpr float kLog2E = 0x1.715476p0f;
  constexpr float kLn2High = 0x1.63p-1f;  // nine bits: n times it is exact
  constexpr float kLn2Low = -0x1.bd0106p-13f;
  const Floats shifted = x * kLog2E + kRoundToInteger;
  const Floats n = shifted - kRoundToInteger;
  const Floats r = (x - n * kLn2High) - n * kLn2Low;
  Floats y = r * (1.0f / 5040) + 1.0f / 720;
  y = y * r + 1.0f / 120;
  y = y * r + 1.0f / 24;
  y = y * r + 1.0f / 6;
  y = y * r + 0.5f;
  y = y * r + 1.0f;
  y = y * r + 1.0f;
  const Ints scaled = reinterpret_cast<Ints>(y) + (reinterpret_cast<Ints>(shifted) << 23);
  return reinterpret_cast<Floats>(scaled & (x >= kExpUnderflow));
}

// p[i] = exp((block[i] - max) * scale). The subtraction comes first: it is exact where p is not negligible.
void exp_block(const float* block, float max, float scale, float* p) {
  for (int i = 0; i < kBlock; i += kLanes) {
    const Floats y = exp_lanes((load(block + i) - max) * scale);
    std::memcpy(p + i, &y, sizeof y);
  }
}

float sum_block(const float* p) {
  Floats sum = load(p);
  for (int i = kLanes; i < kBlock; i += kLanes) sum += load(p + i);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// Calls visit(b, block) with block b of the row, the last one padded with -inf, when wanted(b).
template <class Wanted, class Visit>
void for_blocks(const float* row, int64_t vocab, const Wanted& wanted, const Visit& visit) {
  const int64_t full = vocab / kBlock;
  for (int64_t b = 0; b < full; ++b)
    if (wanted(b)) visit(b, row + b * kBlock);
  if (vocab % kBlock != 0 && wanted(full)) {
    float padded[kBlock];
    std::fill(std::copy(row + full * kBlock, row + vocab, padded), padded + kBlock, -kInfinity);
    visit(full, padded);
  }
}

// A row as the last scan saw it.
struct Row {
  const float* logits;
  int64_t vocab;
  float* block_max;  // [num_blocks(vocab)]
  float max = -kInfinity;
  int64_t max_block = 0;  // the first block that holds max
  bool has_nan = false;

  Row(const float* values, int64_t size, float* maxima) : logits(values), vocab(size), block_max(maxima) {
    Ints not_a_number{};
    for_blocks(
        logits, vocab, [](int64_t) { return true; },
        [&](int64_t b, const float* block) {
          Floats m[2] = {load(block), load(block + kLanes)};
          not_a_number |= (m[0] != m[0]) | (m[1] != m[1]);
          for (int i = 2 * kLanes; i < kBlock; i += 2 * kLanes) {
            for (int j = 0; j < 2; ++j) {
              const Floats v = load(block + i + j * kLanes);
              not_a_number |= v != v;
              m[j] = v > m[j] ? v : m[j];
            }
          }
          const Floats both = m[1] > m[0] ? m[1] : m[0];
          block_max[b] = std::max(std::max(both[0], both[1]), std::max(both[2], both[3]));
          if (block_max[b] > max) {
            max = block_max[b];
            max_block = b;
          }
        });
    has_nan = (not_a_number[0] | not_a_number[1] | not_a_number[2] | not_a_number[3]) != 0;
  }

  bool is_usable() const { return !has_nan && std::isfinite(max); }
  int32_t argmax() const {
    int64_t i = max_block * kBlock;
    while (logits[i] != max) ++i;
    return static_cast<int32_t>(i);
  }
  // Sum of exp((logit - max) * scale): floats inside a block, doubles across blocks, in the order of the
  // vocabulary.
  double sum_of_exp(float scale) const {
    double sum = 0;
    for_blocks(
        logits, vocab, [&](int64_t b) { return (block_max[b] - max) * scale >= kExpUnderflow; },
        [&](int64_t, const float* block) {
          float p[kBlock];
          exp_block(block, max, scale, p);
          sum += sum_block(p);
        });
    return sum;
  }
};

// A value and its token as one integer that sorts as (value, then lowest id first) when sorted downwards.
uint64_t make_key(float value, int64_t token) {
  const auto bits = std::bit_cast<uint32_t>(value + 0.0f);  // -0 becomes +0: they are equal values
  const uint32_t ordered = bits ^ (bits >> 31 != 0 ? 0xffffffffu : 0x80000000u);
  return uint64_t{ordered} << 32 | (0xffffffffu - static_cast<uint32_t>(token));
}
int32_t key_token(uint64_t key) {
  return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(key));
}
float key_value(uint64_t key) {
  const auto ordered = static_cast<uint32_t>(key >> 32);
  return std::bit_cast<float>(ordered ^ (ordered >> 31 != 0 ? 0x80000000u : 0xffffffffu));
}

// Keys of the k largest logits, in no order, into worker.candidates. The k-th largest block maximum bounds
// the k-th largest logit from below, so only the blocks that reach it are looked at: about k of them.
int64_t select_top(const Row& row, int64_t k, const SampleScratch::Worker& worker) {
  const int64_t blocks = num_blocks(row.vocab);
  float bound = -kInfinity;
  if (k <= blocks) {
    std::copy(row.block_max, row.block_max + blocks, worker.largest);
    std::nth_element(worker.largest, worker.largest + k - 1, worker.largest + blocks, std::greater<>());
    bound = worker.largest[k - 1];
  }
  uint64_t* end = worker.candidates;
  for (int64_t b = 0; b < blocks; ++b) {
    if (row.block_max[b] < bound) continue;
    const int64_t stop = std::min(row.vocab, (b + 1) * kBlock);
    for (int64_t i = b * kBlock; i < stop; ++i)
      if (row.logits[i] >= bound) *end++ = make_key(row.logits[i], i);
  }
  if (end - worker.candidates > k)
    std::nth_element(worker.candidates, worker.candidates + k - 1, end, std::greater<>());
  return std::min<int64_t>(k, end - worker.candidates);
}

// Moves the shortest run of keys, largest first, whose values add up to `mass` to the front; returns its
// length, at least 1. Halves the span that holds the cut, so the work is linear in `count`.
int64_t select_mass(uint64_t* keys, int64_t count, double mass) {
  int64_t low = 0;  // keys[0, low) are in; the cut lies in [low, high)
  int64_t high = count;
  double in = 0;
  while (high - low > 16) {
    const int64_t middle = low + (high - low) / 2;
    std::nth_element(keys + low, keys + middle, keys + high, std::greater<>());
    double upper = 0;
    for (int64_t i = low; i < middle; ++i) upper += key_value(keys[i]);
    if (in + upper >= mass) {
      high = middle;
    } else {
      in += upper;
      low = middle;
    }
  }
  std::sort(keys + low, keys + high, std::greater<>());
  while (low < high && (in < mass || low == 0)) in += key_value(keys[low++]);
  return low;
}

// Bounds on log p that only spare work are loosened by this, far more than exp_lanes and log can be off
// together.
constexpr float kLogSlack = 1e-3f;

int32_t draw_unfiltered(const Row& row, const SampleRow& params, float scale) {
  Race race(params.seed, params.position);
  float floor = kExpUnderflow;
  if (params.min_p > 0) floor = std::max(floor, std::log(params.min_p) - kLogSlack);
  race.enter(1.0f, row.argmax());
  floor = std::max(floor, race.hopeless_log_p() - kLogSlack);
  for_blocks(
      row.logits, row.vocab, [&](int64_t b) { return (row.block_max[b] - row.max) * scale >= floor; },
      [&](int64_t b, const float* block) {
        float p[kBlock];
        exp_block(block, row.max, scale, p);
        bool improved = false;
        for (int i = 0; i < kBlock; ++i)
          if (p[i] > 0 && p[i] >= params.min_p)
            improved |= race.enter(p[i], static_cast<int32_t>(b * kBlock + i));
        if (improved) floor = std::max(floor, race.hopeless_log_p() - kLogSlack);
      });
  return race.winner();
}

// Keys (p, token) of the tokens that top_k and top_p leave, into worker.candidates; returns how many.
int64_t filter(const Row& row, const SampleRow& params, float scale, const SampleScratch::Worker& worker) {
  const bool has_top_k = params.top_k > 0 && params.top_k < row.vocab;
  const bool has_top_p = params.top_p < 1.0f;
  uint64_t* const keys = worker.candidates;
  int64_t count = 0;
  double total = 0;
  if (has_top_k) {
    count = select_top(row, params.top_k, worker);
    for (int64_t begin = 0; begin < count; begin += kBlock) {
      const int64_t size = std::min<int64_t>(kBlock, count - begin);
      float block[kBlock];
      float p[kBlock];
      std::fill(block, block + kBlock, -kInfinity);
      for (int64_t i = 0; i < size; ++i) block[i] = key_value(keys[begin + i]);
      exp_block(block, row.max, scale, p);
      for (int64_t i = 0; i < size; ++i) {
        keys[begin + i] = make_key(p[i], key_token(keys[begin + i]));
        total += p[i];
      }
    }
  } else {
    // All tokens below `least` together hold less than half of what top_p leaves out, so the cut lies above
    // them.
    total = row.sum_of_exp(scale);
    const double left_out = 1.0 - static_cast<double>(params.top_p);
    const float least = static_cast<float>(0.5 * left_out * total / static_cast<double>(row.vocab));
    const float floor = std::max(kExpUnderflow, std::log(least) - kLogSlack);
    for_blocks(
        row.logits, row.vocab, [&](int64_t b) { return (row.block_max[b] - row.max) * scale >= floor; },
        [&](int64_t b, const float* block) {
          float p[kBlock];
          exp_block(block, row.max, scale, p);
          for (int i = 0; i < kBlock; ++i)
            if (p[i] >= least && p[i] > 0) keys[count++] = make_key(p[i], b * kBlock + i);
        });
  }
  return has_top_p ? select_mass(keys, count, params.top_p * total) : count;
}

int32_t draw(const Row& row, const SampleRow& params, const SampleScratch::Worker& worker) {
  if (params.temperature < kGreedyTemperature) return row.argmax();
  const float scale = 1.0f / params.temperature;
  if ((params.top_k <= 0 || params.top_k >= row.vocab) && params.top_p >= 1.0f)
    return draw_unfiltered(row, params, scale);
  const int64_t count = filter(row, params, scale, worker);
  Race race(params.seed, params.position);
  for (int64_t i = 0; i < count; ++i) {
    const float p = key_value(worker.candidates[i]);
    if (p > 0 && p >= params.min_p) race.enter(p, key_token(worker.candidates[i]));
  }
  return race.winner();
}

// Repetition as in Keskar et al. 2019 (CTRL, section 4.1), with the sign rule that Hugging Face made common:
// a positive logit is divided, another multiplied, once for each distinct token of prompt and output.
// Frequency and presence as in OpenAI's interface: subtracted by count, and once, over the output.
float penalised(const SampleRow& params, float logit, uint32_t count) {
  if (count == 0) return logit;
  const uint32_t in_output = count & ~kSeenToken;
  logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
  if (in_output > 0)
    logit -= static_cast<float>(in_output) * params.frequency_penalty + params.presence_penalty;
  return logit;
}

// The counted tokens, then the recent ones, whose logits are kept aside meanwhile.
void penalise(const SampleRow& params, const TokenCounts& counts, int32_t last_drawn, float* logits,
              int64_t vocab, const SampleScratch::Worker& worker) {
  int64_t num_kept = 0;
  for (int i = 0; i < params.num_recent; ++i) {
    const int32_t token = params.recent[i] >= 0 ? params.recent[i] : last_drawn;
    SERVAL_DCHECK(token < vocab, token, vocab);
    if (worker.recent[token]++ == 0)
      worker.candidates[num_kept++] = uint64_t{std::bit_cast<uint32_t>(logits[token])} << 32 | token;
  }
  const uint32_t* const counted = params.counts_slot >= 0 ? counts.of(params.counts_slot) : nullptr;
  if (counted != nullptr) {
    counts.for_blocks(params.counts_slot, [&](int64_t b) {
      const int64_t end = std::min(vocab, (b + 1) * kBlock);
      for (int64_t i = b * kBlock; i < end; ++i) logits[i] = penalised(params, logits[i], counted[i]);
    });
  }
  for (int64_t i = 0; i < num_kept; ++i) {
    const auto token = static_cast<uint32_t>(worker.candidates[i]);
    const auto logit = std::bit_cast<float>(static_cast<uint32_t>(worker.candidates[i] >> 32));
    const uint32_t count = (counted != nullptr ? counted[token] : 0) | kSeenToken;
    logits[token] = penalised(params, logit, count + worker.recent[token]);
    worker.recent[token] = 0;
  }
}

void change_logits(const SampleRow& params, const TokenCounts& counts, int32_t last_drawn, float* logits,
                   int64_t vocab, const SampleScratch::Worker& worker) {
  if (params.mask != nullptr) {
    for (int64_t begin = 0; begin < vocab; begin += 32) {
      const uint32_t allowed = params.mask[begin / 32];
      if (allowed == 0xffffffffu) continue;
      const int64_t end = std::min(vocab, begin + 32);
      for (int64_t i = begin; i < end; ++i)
        if ((allowed >> (i - begin) & 1) == 0) logits[i] = -kInfinity;
    }
  }
  const auto is_in_row = [vocab](int32_t token) { return token >= 0 && token < vocab; };
  for (int i = 0; i < params.num_logit_bias; ++i) {
    SERVAL_DCHECK(is_in_row(params.logit_bias[i].token), params.logit_bias[i].token, vocab);
    logits[params.logit_bias[i].token] += params.logit_bias[i].bias;
  }
  if (params.has_penalty()) penalise(params, counts, last_drawn, logits, vocab, worker);
  for (int i = 0; i < params.num_banned; ++i) {
    SERVAL_DCHECK(is_in_row(params.banned[i]), params.banned[i], vocab);
    logits[params.banned[i]] = -kInfinity;
  }
}

// Raw log-probabilities of the result's token and of the best ones.
void report(const Row& raw, const SampleRow& params, const SampleScratch::Worker& worker,
            SampleResult& result, TopLogprob* top) {
  const double log_sum = std::log(raw.sum_of_exp(1.0f));
  const auto logprob = [&](float logit) {
    return static_cast<float>(static_cast<double>(logit) - raw.max - log_sum);
  };
  const float value = raw.logits[result.token];
  result.logprob = logprob(value);
  int64_t larger = 0;
  for_blocks(
      raw.logits, raw.vocab, [&](int64_t b) { return raw.block_max[b] > value; },
      [&](int64_t, const float* block) {
        larger += std::count_if(block, block + kBlock, [&](float v) { return v > value; });
      });
  result.rank = static_cast<int>(larger) + 1;
  if (params.num_top == 0) return;
  const int64_t count = select_top(raw, params.num_top, worker);
  std::sort(worker.candidates, worker.candidates + count, std::greater<>());
  for (int64_t i = 0; i < count; ++i)
    top[i] = {key_token(worker.candidates[i]), logprob(key_value(worker.candidates[i]))};
}

SampleResult sample_row(const SampleRow& params, const TokenCounts& counts, int32_t last_drawn, float* logits,
                        int64_t vocab, const SampleScratch::Worker& worker, TopLogprob* top) {
  SampleResult result;
  Row raw(logits, vocab, worker.raw_block_max);
  result.finite = raw.is_usable();
  if (!result.finite) return result;
  if (params.forced >= 0) {
    result.token = params.forced;
  } else if (!params.changes_logits()) {
    result.token = draw(raw, params, worker);
  } else {
    if (params.num_top >= 0)
      raw.logits = static_cast<float*>(std::memcpy(worker.raw, logits, vocab * sizeof(float)));
    change_logits(params, counts, last_drawn, logits, vocab, worker);
    const Row changed(logits, vocab, worker.block_max);
    result.finite = changed.is_usable();
    if (!result.finite) return result;
    result.token = draw(changed, params, worker);
  }
  if (params.num_top >= 0) report(raw, params, worker, result, top);
  return result;
}

size_t round_up(size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

// Where each array of a worker's part begins, and the part's size.
struct Layout {
  size_t raw, block_max, raw_block_max, largest, candidates, recent, size;
  explicit Layout(int64_t vocab) {
    const size_t row = round_up(static_cast<size_t>(vocab) * sizeof(float));
    const size_t maxima = round_up(static_cast<size_t>(num_blocks(vocab)) * sizeof(float));
    candidates = 0;
    raw = 2 * row;
    recent = raw + row;
    block_max = recent + row;
    raw_block_max = block_max + maxima;
    largest = raw_block_max + maxima;
    size = largest + maxima;
  }
};

}  // namespace

size_t SampleScratch::bytes(int num_workers, int64_t vocab, int num_slots) {
  return static_cast<size_t>(num_workers) * Layout(vocab).size + TokenCounts::bytes(num_slots, vocab);
}

void SampleScratch::reserve(int num_workers, int64_t vocab, int num_slots) {
  counts.reserve(num_slots, vocab);
  if (num_workers <= num_workers_ && vocab <= vocab_) return;
  num_workers_ = std::max(num_workers, num_workers_);
  vocab_ = std::max(vocab, vocab_);
  memory_ = std::make_unique<std::byte[]>(num_workers_ * Layout(vocab_).size);  // zeroed, as `recent` must be
}

SampleScratch::Worker SampleScratch::worker(int index) const {
  const Layout layout(vocab_);
  std::byte* const base = memory_.get() + static_cast<size_t>(index) * layout.size;
  return {.raw = reinterpret_cast<float*>(base + layout.raw),
          .block_max = reinterpret_cast<float*>(base + layout.block_max),
          .raw_block_max = reinterpret_cast<float*>(base + layout.raw_block_max),
          .largest = reinterpret_cast<float*>(base + layout.largest),
          .candidates = reinterpret_cast<uint64_t*>(base + layout.candidates),
          .recent = reinterpret_cast<uint32_t*>(base + layout.recent)};
}

void sample_rows(const SampleArgs& args, ThreadPool& pool, SampleScratch& scratch) {
  const int64_t num_rows = args.logits.dim(0);
  const int64_t vocab = args.logits.dim(1);
  SERVAL_CHECK(args.logits.dtype == DType::kF32 && vocab > 0, dtype_name(args.logits.dtype), vocab);
  int num_slots = 0;
  for (int i = 0; i < args.num_counted; ++i) num_slots = std::max(num_slots, args.counted[i].slot + 1);
  scratch.reserve(pool.num_threads(), vocab, num_slots);
  for (int i = 0; i < args.num_counted; ++i) scratch.counts.add(args.counted[i]);
  pool.for_each(num_rows, [&](int worker, int64_t r) {
    const SampleRow& params = args.rows[r];
    SERVAL_DCHECK(params.num_top <= args.top_stride && params.num_top <= vocab, params.num_top,
                  args.top_stride, vocab);
    TopLogprob* const top = args.top == nullptr ? nullptr : args.top + r * args.top_stride;
    const int32_t last_drawn = params.slot >= 0 ? scratch.last_drawn.at(params.slot) : 0;
    SERVAL_DCHECK(params.counts_slot < scratch.counts.num_slots(), params.counts_slot);
    args.results[r] = sample_row(params, scratch.counts, last_drawn, args.logits.as<float>() + r * vocab,
                                 vocab, scratch.worker(worker), top);
    if (params.slot >= 0 && args.results[r].finite) scratch.last_drawn[params.slot] = args.results[r].token;
  });
}

}  // namespace serval
