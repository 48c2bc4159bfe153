#include "kernels/cpu/sample.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <span>

#include "kernels/base/check.h"
#include "kernels/gumbel.h"

namespace serval {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kBlock = cpu::kLogitBlock;
static_assert(kBlock == TokenCounts::kBlock);

int64_t num_blocks(int64_t vocab) {
  return (vocab + kBlock - 1) / kBlock;
}

// A row as the last scan saw it.
struct Row : cpu::LogitRow {
  const cpu::SampleKernels* kernels;

  Row(const cpu::SampleKernels& table, const float* values, int64_t size, float* maxima)
      : LogitRow{.logits = values, .vocab = size, .block_max = maxima}, kernels(&table) {
    kernels->scan(*this);
  }
  bool is_usable() const { return !has_nan && std::isfinite(max); }
  int32_t argmax() const {
    int64_t i = max_block * kBlock;
    while (logits[i] != max) ++i;
    return static_cast<int32_t>(i);
  }
  double sum_of_exp(float scale) const { return kernels->sum_of_exp(*this, scale); }
};

int32_t found_token(uint64_t found) {
  return static_cast<int32_t>(found & 0xffffffffu);
}
float found_probability(uint64_t found) {
  return std::bit_cast<float>(static_cast<uint32_t>(found >> 32));
}

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
// length, at least 1. The values lie in (0, 1]. Sums by sixteenths of binades say which of these holds the
// cut; inside it the span that holds the cut is halved. So the work is linear in `count`.
int64_t select_mass(uint64_t* keys, int64_t count, double mass) {
  constexpr int kBinShift = 19;
  constexpr int kBins = (0x3f800000 >> kBinShift) + 1;
  const auto bin_of = [](uint64_t key) {
    return static_cast<int>(std::bit_cast<uint32_t>(key_value(key)) >> kBinShift);
  };
  double sums[kBins] = {};
  for (int64_t i = 0; i < count; ++i) sums[bin_of(keys[i])] += key_value(keys[i]);
  double in = 0;
  int cut = kBins - 1;
  while (cut > 0 && in + sums[cut] < mass) in += sums[cut--];
  const auto above = std::partition(keys, keys + count, [&](uint64_t key) { return bin_of(key) > cut; });
  const auto end = std::partition(above, keys + count, [&](uint64_t key) { return bin_of(key) == cut; });
  int64_t low = above - keys;  // keys[0, low) are in; the cut lies in [low, high)
  int64_t high = end - keys;
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

// Of the noise beside the draws' own: whether a guess is taken, and what is drawn in its place.
constexpr uint64_t kSeedOfChance = 0x8f1bbcdc62c1d6a5ull, kSeedOfRest = 0xca62c1d6a5f1bb9cull;

int32_t draw_unfiltered(const Row& row, const SampleRow& params, float scale) {
  Race race(params.seed, params.position);
  cpu::RaceArgs args{
      .scale = scale, .floor = cpu::kExpUnderflow, .min_p = params.min_p, .stream = race.stream()};
  if (params.min_p > 0) args.floor = std::max(args.floor, std::log(params.min_p) - kLogSlack);
  race.enter(1.0f, row.argmax());  // a first time to beat
  const int64_t blocks = num_blocks(row.vocab);
  constexpr int64_t kBlocksAtOnce = 8;  // few enough that the time to beat is a recent one
  uint64_t found[kBlocksAtOnce * kBlock];
  bool improved = true;
  for (args.begin_block = 0; args.begin_block < blocks; args.begin_block = args.end_block) {
    args.end_block = std::min(blocks, args.begin_block + kBlocksAtOnce);
    if (improved) args.floor = std::max(args.floor, race.hopeless_log_p() - kLogSlack);
    args.limit = race.limit();
    const int64_t count = row.kernels->race(row, args, found);
    improved = false;
    for (int64_t i = 0; i < count; ++i)
      improved |= race.enter(found_probability(found[i]), found_token(found[i]));
  }
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
      row.kernels->exp_block(block, row.max, scale, p);
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
    const float floor = std::max(cpu::kExpUnderflow, std::log(least) - kLogSlack);
    count = row.kernels->probable(row, scale, floor, least, keys);
    for (int64_t i = 0; i < count; ++i) keys[i] = make_key(found_probability(keys[i]), found_token(keys[i]));
  }
  return has_top_p ? select_mass(keys, count, params.top_p * total) : count;
}

// What a row may draw, as keys (p, token) in no order whose p are above 0.
struct Distribution {
  std::span<const uint64_t> keys;
  double total = 0;  // of their p

  double of(int32_t token) const {
    const auto found = std::ranges::find(keys, token, key_token);
    return found == keys.end() ? 0 : key_value(*found) / total;
  }
};

Distribution distribution(const Row& row, const SampleRow& params, float scale, const SampleScratch::Worker& worker) {
  uint64_t* const keys = worker.candidates;
  int64_t count = 0;
  if ((params.top_k > 0 && params.top_k < row.vocab) || params.top_p < 1.0f) {
    count = filter(row, params, scale, worker);
  } else {
    for (int64_t i = 0; i < row.vocab; ++i) keys[count++] = make_key(std::exp((row.logits[i] - row.max) * scale), i);
  }
  const auto end = std::remove_if(keys, keys + count, [&](uint64_t key) { return key_value(key) <= 0 || key_value(key) < params.min_p; });
  Distribution p{{keys, end}};
  for (const uint64_t key : p.keys) p.total += key_value(key);
  return p;
}

int32_t draw_by(const Distribution& p, const SampleRow& params) {
  Race race(params.seed, params.position);
  for (const uint64_t key : p.keys) race.enter(key_value(key), key_token(key));
  return race.winner();
}

// The token of max(0, p - q), the first guess being refused; noise of its own.
int32_t draw_rest(const Distribution& p, const GuessRule& rule, const SampleRow& params) {
  Race race(params.seed ^ kSeedOfRest, params.position);
  for (const uint64_t key : p.keys) {
    const int32_t token = key_token(key);
    const double q = rule.drawn_by != nullptr ? rule.drawn_by[token] : token == rule.guesses[0];
    const auto rest = static_cast<float>(key_value(key) / p.total - q);
    if (rest > 0) race.enter(rest, token);
  }
  return race.winner() >= 0 ? race.winner() : rule.guesses[0];  // p and q are one
}

int32_t draw_rejecting(const Distribution& p, const GuessRule& rule, const SampleRow& params) {
  const int32_t guess = rule.guesses[0];
  const double q = rule.drawn_by != nullptr ? rule.drawn_by[guess] : 1;
  const double chance = token_uniform(noise_stream(params.seed ^ kSeedOfChance, params.position), 0);
  return chance * q < p.of(guess) ? guess : draw_rest(p, rule, params);
}

int32_t draw_typical(const Distribution& p, const GuessRule& rule, const SampleRow& params) {
  constexpr double kMost = 0.09, kShare = 0.3;  // epsilon and delta of the paper's
  double entropy = 0;
  for (const uint64_t key : p.keys) entropy -= key_value(key) / p.total * std::log(key_value(key) / p.total);
  int32_t best = -1;
  double least = std::min(kMost, kShare * std::exp(-entropy));
  for (int i = 0; i < rule.num_guesses; ++i) {
    const double of_guess = p.of(rule.guesses[i]);
    if (of_guess <= least) continue;
    least = of_guess;
    best = rule.guesses[i];
  }
  return best >= 0 ? best : draw_by(p, params);
}

int32_t draw_guessed(const Row& row, const SampleRow& params, const SampleScratch::Worker& worker) {
  const bool is_greedy = params.temperature < kGreedyTemperature;
  if (params.drawn_by != nullptr) std::fill_n(params.drawn_by, row.vocab, 0.0f);
  if (is_greedy) {
    if (params.drawn_by != nullptr) params.drawn_by[row.argmax()] = 1;
    return row.argmax();
  }
  const Distribution p = distribution(row, params, 1.0f / params.temperature, worker);
  for (size_t i = 0; params.drawn_by != nullptr && i < p.keys.size(); ++i)
    params.drawn_by[key_token(p.keys[i])] = static_cast<float>(key_value(p.keys[i]) / p.total);
  const GuessRule* const rule = params.guess;
  if (rule == nullptr || rule->num_guesses == 0) return draw_by(p, params);
  return rule->is_typical ? draw_typical(p, *rule, params) : draw_rejecting(p, *rule, params);
}

int32_t draw(const Row& row, const SampleRow& params, const SampleScratch::Worker& worker) {
  if (params.guess != nullptr || params.drawn_by != nullptr) return draw_guessed(row, params, worker);
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
// This for one token is penalise of the kernel table for many.
float penalised(const SampleRow& params, float logit, uint32_t count) {
  const uint32_t in_output = count & ~kSeenToken;
  logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
  if (in_output > 0)
    logit -= static_cast<float>(in_output) * params.frequency_penalty + params.presence_penalty;
  return logit;
}

// The counted tokens, then the recent ones, whose logits are kept aside meanwhile.
void penalise(const cpu::SampleKernels& kernels, const SampleRow& params, const TokenCounts& counts,
              int32_t last_drawn, float* logits, int64_t vocab, const SampleScratch::Worker& worker) {
  int64_t num_kept = 0;
  for (int i = 0; i < params.num_recent; ++i) {
    const int32_t token = params.recent[i] >= 0 ? params.recent[i] : last_drawn;
    SERVAL_DCHECK(token < vocab, token, vocab);
    if (worker.recent[token]++ == 0)
      worker.candidates[num_kept++] = uint64_t{std::bit_cast<uint32_t>(logits[token])} << 32 | token;
  }
  const uint32_t* const counted = params.counts_slot >= 0 ? counts.of(params.counts_slot) : nullptr;
  if (counted != nullptr) {
    const cpu::Penalties penalties{.repetition = params.repetition_penalty,
                                   .presence = params.presence_penalty,
                                   .frequency = params.frequency_penalty};
    counts.for_blocks(params.counts_slot, [&](int64_t b) {
      const int64_t begin = b * kBlock;
      kernels.penalise(logits + begin, counted + begin, std::min<int64_t>(kBlock, vocab - begin), penalties);
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

void change_logits(const cpu::SampleKernels& kernels, const SampleRow& params, const TokenCounts& counts,
                   int32_t last_drawn, float* logits, int64_t vocab, const SampleScratch::Worker& worker) {
  if (params.mask != nullptr) {
    for (int64_t begin = 0; begin < vocab; begin += 32) {
      const uint32_t allowed = params.mask[begin / 32];
      if (allowed == 0xffffffffu) continue;
      const int64_t end = std::min(vocab, begin + 32);
      for (int64_t i = begin; i < end; ++i)
        if ((allowed >> (i - begin) & 1) == 0) logits[i] = -kInfinity;
    }
  }
  [[maybe_unused]] const auto is_in_row = [vocab](int32_t token) { return token >= 0 && token < vocab; };
  for (int i = 0; i < params.num_logit_bias; ++i) {
    SERVAL_DCHECK(is_in_row(params.logit_bias[i].token), params.logit_bias[i].token, vocab);
    logits[params.logit_bias[i].token] += params.logit_bias[i].bias;
  }
  if (params.has_penalty()) penalise(kernels, params, counts, last_drawn, logits, vocab, worker);
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
  result.rank = static_cast<int>(raw.kernels->count_larger(raw, value)) + 1;
  if (params.num_top == 0) return;
  const int64_t count = select_top(raw, params.num_top, worker);
  std::sort(worker.candidates, worker.candidates + count, std::greater<>());
  for (int64_t i = 0; i < count; ++i)
    top[i] = {key_token(worker.candidates[i]), logprob(key_value(worker.candidates[i]))};
}

SampleResult sample_row(const cpu::SampleKernels& kernels, const SampleRow& params, const TokenCounts& counts,
                        int32_t last_drawn, float* logits, int64_t vocab, const SampleScratch::Worker& worker,
                        TopLogprob* top) {
  SampleResult result;
  Row raw(kernels, logits, vocab, worker.raw_block_max);
  result.finite = raw.is_usable();
  if (!result.finite) return result;
  if (params.forced >= 0) {
    result.token = params.forced;
  } else if (!params.changes_logits()) {
    result.token = draw(raw, params, worker);
  } else {
    if (params.num_top >= 0)
      raw.logits = static_cast<float*>(std::memcpy(worker.raw, logits, vocab * sizeof(float)));
    change_logits(kernels, params, counts, last_drawn, logits, vocab, worker);
    const Row changed(kernels, logits, vocab, worker.block_max);
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
    raw = 2 * row + kBlock * sizeof(uint64_t);
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

void sample_rows(const SampleArgs& args, const cpu::SampleKernels& kernels, ThreadPool& pool,
                 SampleScratch& scratch) {
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
    args.results[r] = sample_row(kernels, params, scratch.counts, last_drawn,
                                 args.logits.as<float>() + r * vocab, vocab, scratch.worker(worker), top);
    if (params.slot >= 0 && args.results[r].finite) scratch.last_drawn[params.slot] = args.results[r].token;
  });
}

}  // namespace serval
