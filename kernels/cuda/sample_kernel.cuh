// The kernel that turns rows of logits into tokens, exactly in the order kernels/sample.h states. A block
// takes a row from its raw logits to its result, so nothing crosses rows. The probabilities have the bits of
// kernels/cpu/sample.cc and so has the noise; sums of probabilities are fixed-point integers, the same in any
// order.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/cuda/block_select.cuh"
#include "kernels/gumbel.h"
#include "kernels/sample.h"

namespace serval::cuda {

inline constexpr int kMaxTop = 1024;  // most tokens that a row reports

struct SampleKernelArgs {
  float* logits;  // [num_rows, vocab], overwritten
  const SampleRow* rows;
  SampleResult* results;
  TopLogprob* top;  // [num_rows, top_stride]
  int top_stride;
  int num_rows;
  int vocab;
  int32_t* last_tokens;
  const uint32_t* counts;  // [slots, vocab] as kSeenToken says
};

inline constexpr float kExpUnderflow = -87.3f;  // below it e^x leaves the normal range and counts as 0
inline constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();

// e^x for x <= 0, operation for operation exp_lanes() of kernels/cpu/sample.cc, where the constants are
// explained.
SERVAL_DEVICE float exp_rounded(float x) {
  const float shifted = multiply_rounded(x, 0x1.715476p0f) + 0x1.8p23f;
  const float n = shifted - 0x1.8p23f;
  const float r = (x - multiply_rounded(n, 0x1.63p-1f)) - multiply_rounded(n, -0x1.bd0106p-13f);
  float y = multiply_rounded(r, 1.0f / 5040) + 1.0f / 720;
  y = multiply_rounded(y, r) + 1.0f / 120;
  y = multiply_rounded(y, r) + 1.0f / 24;
  y = multiply_rounded(y, r) + 1.0f / 6;
  y = multiply_rounded(y, r) + 0.5f;
  y = multiply_rounded(y, r) + 1.0f;
  y = multiply_rounded(y, r) + 1.0f;
  return x >= kExpUnderflow ? float_of(bits_of(y) + (bits_of(shifted) << 23)) : 0.0f;
}

// Masses are probabilities relative to the largest, in units of 2^-41: all of a vocabulary of 2^22 fit.
inline constexpr float kMassUnits = 0x1p41f;
SERVAL_DEVICE uint64_t mass_of(float p) {
  return static_cast<uint64_t>(p * kMassUnits);
}

// A probability (at most 1) as a key's value; its two low bits are free, so that the top digit tells eighths
// of binades apart.
SERVAL_DEVICE uint64_t probability_key(float p, int32_t id) {
  return make_key(bits_of(p) << 2, id);
}
SERVAL_DEVICE float key_probability(uint64_t key) {
  return float_of(key_value(key) >> 2);
}

// A row as the last scan saw it; the same in every thread but for thread_max.
struct RowScan {
  bool is_usable;  // no NaN, no +inf, some finite
  float max;
  int32_t argmax;
  uint32_t thread_max;  // ordered_bits() of the largest that this thread saw

  SERVAL_DEVICE float probability(float logit, float scale) const {
    return exp_rounded(multiply_rounded(logit - max, scale));
  }
};

// change(i, logit) gives the logit that counts.
template <class Change>
SERVAL_DEVICE RowScan scan_row(const float* row, int vocab, const BlockSpace& space, const Change& change) {
  float best = kNegativeInfinity;
  int32_t id = 0;
  bool has_nan = false;
  for_row(row, vocab, [&](int i, float raw) {
    const float logit = change(i, raw);
    has_nan |= logit != logit;
    if (logit > best) {
      best = logit;
      id = i;
    }
  });
  const uint32_t thread_max = ordered_bits(best);
  const uint64_t key = block_max(make_key(has_nan ? 0xffffffffu : thread_max, id), space);
  const uint32_t value = key_value(key);
  return {.is_usable = value > ordered_bits(kNegativeInfinity) && value < ordered_bits(-kNegativeInfinity),
          .max = float_of_ordered(value),
          .argmax = key_id(key),
          .thread_max = thread_max};
}

// Puts the keys of the k largest logits and some others among `keys`; returns the smallest of the k. The k-th
// largest of the threads' maxima bounds the k-th largest logit from below, which leaves few others.
SERVAL_DEVICE uint64_t select_top(const float* row, int vocab, int k, const RowScan& scan,
                                  const BlockSpace& space, OwnKeys& keys) {
  const auto one = [](uint64_t) { return uint64_t{1}; };
  uint32_t bound = 0;
  if (k <= simt::num_threads()) {
    const uint64_t own = make_key(scan.thread_max, simt::thread());
    bound = key_value(select_largest(
        space, k, [&](const auto& visit) { visit(own); }, one));
  }
  for_row(row, vocab, [&](int i, float logit) {
    const uint32_t value = ordered_bits(logit);
    if (value >= bound) keys.push(make_key(value, i));
  });
  return select_largest(
      space, k, [&](const auto& visit) { keys.for_each(visit); }, one);
}

SERVAL_DEVICE int32_t finish(const Race& race, const BlockSpace& space) {
  union {
    double value;
    uint64_t bits;  // of the order of the times, which are positive
  } time;
  time.value = race.time();
  const uint64_t first = block_min(time.bits, space);
  const bool is_first = time.bits == first && race.winner() >= 0;
  return static_cast<int32_t>(block_min(is_first ? race.winner() : kMaxIds, space));
}

SERVAL_DEVICE void enter(Race& race, float p, int32_t token, float min_p) {
  if (p > 0 && p >= min_p && race.may_enter(p, token)) race.enter(p, token);
}

SERVAL_DEVICE int32_t draw_unfiltered(const float* row, int vocab, const SampleRow& params, float scale,
                                      const RowScan& scan, const BlockSpace& space) {
  const float min_p = params.min_p;
  Race race(params.seed, params.position);
  race.enter(1.0f, scan.argmax);  // a first time to beat
  for_row(row, vocab, [&](int i, float logit) { enter(race, scan.probability(logit, scale), i, min_p); });
  return finish(race, space);
}

SERVAL_DEVICE int32_t draw_filtered(const float* row, int vocab, const SampleRow& params, float scale,
                                    const RowScan& scan, const BlockSpace& space, OwnKeys keys) {
  const bool has_top_k = params.top_k > 0 && params.top_k < vocab;
  const float top_p = params.top_p, min_p = params.min_p;
  // From here a key's value is a probability; 0 marks a token that is out.
  uint64_t total = 0, kept = 0;
  if (has_top_k) {
    const uint64_t least = select_top(row, vocab, params.top_k, scan, space, keys);
    keys.change_each([&](uint64_t key) {
      if (key < least) return uint64_t{0};
      const float p = scan.probability(float_of_ordered(key_value(key)), scale);
      kept += mass_of(p);
      return probability_key(p, key_id(key));
    });
    total = kept = block_total(kept, space);
  } else {
    for_row(row, vocab, [&](int, float logit) { total += mass_of(scan.probability(logit, scale)); });
    total = block_total(total, space);
    // All tokens below `least` together hold less than half of what top_p leaves out, so the cut lies above
    // them.
    const double left_out = 1.0 - static_cast<double>(top_p);
    const auto least = static_cast<float>(0.5 * left_out * static_cast<double>(total) / kMassUnits / vocab);
    for_row(row, vocab, [&](int i, float logit) {
      const float p = scan.probability(logit, scale);
      if (p < least || p == 0) return;
      kept += mass_of(p);
      keys.push(probability_key(p, i));
    });
    kept = block_total(kept, space);
  }
  uint64_t least = 1;
  if (top_p < 1.0f) {
    const double exact = static_cast<double>(top_p) * static_cast<double>(total);
    auto need = static_cast<uint64_t>(exact);
    if (static_cast<double>(need) < exact || need == 0) ++need;  // at least one token
    if (need > kept) need = kept;                                // by rounding, when top_p is almost 1
    least = select_largest(
        space, need, [&](const auto& visit) { keys.for_each(visit); },
        [](uint64_t key) { return mass_of(key_probability(key)); });
  }
  Race race(params.seed, params.position);
  keys.for_each([&](uint64_t key) {
    if (key >= least) enter(race, key_probability(key), key_id(key), min_p);
  });
  return finish(race, space);
}

SERVAL_DEVICE int32_t draw(const float* row, int vocab, const SampleRow& params, const RowScan& scan,
                           const BlockSpace& space, const OwnKeys& keys) {
  if (params.temperature < kGreedyTemperature) return scan.argmax;
  const float scale = 1.0f / params.temperature;
  if ((params.top_k <= 0 || params.top_k >= vocab) && params.top_p >= 1.0f)
    return draw_unfiltered(row, vocab, params, scale, scan, space);
  return draw_filtered(row, vocab, params, scale, scan, space, keys);
}

// What single tokens bring to the row, before the walk over all of it. A banned token can be taken out first:
// -inf stays -inf whatever is added to it.
SERVAL_DEVICE void change_tokens(const SampleRow& params, float* row, uint32_t* recent,
                                 const int32_t* last_tokens) {
  const int first = simt::thread(), threads = simt::num_threads();
  for (int i = first; i < params.num_banned; i += threads) row[params.banned[i]] = kNegativeInfinity;
  if (params.has_penalty()) {
    for (int i = first; i < params.num_recent; i += threads) {
      const int32_t token = params.recent[i];
      simt::atomic_add(&recent[token >= 0 ? token : last_tokens[params.slot]], 1u);
    }
  }
  // The biases of one token are added by the thread that has its first, in their order.
  for (int i = first; i < params.num_logit_bias; i += threads) {
    const int32_t token = params.logit_bias[i].token;
    bool is_first = true;
    for (int j = 0; j < i; ++j) is_first &= params.logit_bias[j].token != token;
    if (!is_first) continue;
    float logit = row[token];
    for (int j = i; j < params.num_logit_bias; ++j)
      if (params.logit_bias[j].token == token) logit += params.logit_bias[j].bias;
    row[token] = logit;
  }
  simt::sync_block();
}

// Mask, biases, penalties and bans; the penalties are explained at penalise() of kernels/cpu/sample.cc.
SERVAL_DEVICE RowScan change_logits(const SampleRow& params, float* row, int vocab, uint32_t* recent,
                                    const SampleKernelArgs& args, const BlockSpace& space) {
  change_tokens(params, row, recent, args.last_tokens);
  const uint32_t* const mask = params.mask;
  const bool counts_tokens = params.has_penalty(), has_recent = params.num_recent > 0;
  const uint32_t* const counts =
      params.counts_slot >= 0 ? args.counts + int64_t{params.counts_slot} * vocab : nullptr;
  const float repetition = params.repetition_penalty, presence = params.presence_penalty,
              frequency = params.frequency_penalty;
  return scan_row(row, vocab, space, [&](int i, float logit) {
    if (mask != nullptr && (mask[i / 32] >> (i % 32) & 1u) == 0) row[i] = logit = kNegativeInfinity;
    if (!counts_tokens) return logit;
    uint32_t count = counts != nullptr ? counts[i] : 0;
    if (has_recent) {
      count += recent[i];
      recent[i] = 0;
    }
    if (count == 0) return logit;
    const uint32_t in_output = count & ~kSeenToken;
    logit = logit > 0 ? logit / repetition : multiply_rounded(logit, repetition);
    if (in_output > 0) logit -= multiply_rounded(static_cast<float>(in_output), frequency) + presence;
    row[i] = logit;
    return logit;
  });
}

// Raw log-probabilities of the result's token and of the best ones.
SERVAL_DEVICE void report(const float* raw, int vocab, const RowScan& scan, int num_top,
                          const BlockSpace& space, const simt::Shared<uint64_t>& best,
                          const simt::Shared<uint32_t>& num_best, OwnKeys keys, SampleResult& result,
                          TopLogprob* top) {
  const float value = raw[result.token];
  uint64_t mass = 0, larger = 0;
  for_row(raw, vocab, [&](int, float logit) {
    mass += mass_of(scan.probability(logit, 1.0f));
    larger += logit > value;
  });
  mass = block_total(mass, space);
  result.rank = static_cast<int>(block_total(larger, space)) + 1;
  const double log_sum = std::log(static_cast<double>(mass) / kMassUnits);
  const auto logprob = [&](float logit) {
    return static_cast<float>(static_cast<double>(logit) - scan.max - log_sum);
  };
  result.logprob = logprob(value);
  if (num_top == 0) return;
  if (simt::thread() == 0) num_best.set(0, 0);
  const uint64_t least = select_top(raw, vocab, num_top, scan, space, keys);
  keys.for_each([&](uint64_t key) {
    if (key >= least) best.set(static_cast<int>(num_best.atomic_add(0, 1u)), key);
  });
  simt::sync_block();
  for (int i = simt::thread(); i < num_top; i += simt::num_threads()) {
    const uint64_t own = best.get(i);
    int place = 0;
    for (int j = 0; j < num_top; ++j) place += best.get(j) > own;
    top[place] = {key_id(own), logprob(float_of_ordered(key_value(own)))};
  }
}

// A block's memory for its rows; `keys` has OwnKeys::capacity().
struct RowSpace {
  float* raw;        // [vocab] the logits before they were changed
  uint32_t* recent;  // [vocab] how often a token is among the recent ones; zero between rows
  uint64_t* keys;
};

// From row r's logits to its result, by a whole block.
SERVAL_DEVICE void sample_row(const SampleKernelArgs& args, int r, const RowSpace& row_space,
                              const BlockSpace& space, const simt::Shared<uint64_t>& best,
                              const simt::Shared<uint32_t>& num_best) {
  const SampleRow& params = args.rows[r];
  const int vocab = args.vocab;
  float* const row = args.logits + int64_t{r} * vocab;
  const OwnKeys keys(row_space.keys);
  const RowScan scan = scan_row(row, vocab, space, [](int, float logit) { return logit; });
  const float* raw = row;
  RowScan changed = scan;
  if (scan.is_usable && params.forced < 0 && params.changes_logits()) {
    if (params.num_top >= 0) {
      for (int i = simt::thread(); i < vocab; i += simt::num_threads()) row_space.raw[i] = row[i];
      raw = row_space.raw;
      simt::sync_block();
    }
    changed = change_logits(params, row, vocab, row_space.recent, args, space);
  }
  SampleResult result;
  result.finite = changed.is_usable;
  if (result.finite)
    result.token = params.forced >= 0 ? params.forced : draw(row, vocab, params, changed, space, keys);
  if (result.finite && params.num_top >= 0) {
    report(raw, vocab, scan, params.num_top, space, best, num_best, keys, result,
           args.top + int64_t{r} * args.top_stride);
  }
  if (simt::thread() != 0) return;
  args.results[r] = result;
  if (result.finite && params.slot >= 0) args.last_tokens[params.slot] = result.token;
}

}  // namespace serval::cuda
