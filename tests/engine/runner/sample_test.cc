// CPU sampling against a straightforward double-precision reference that sorts the whole vocabulary, against
// the distribution it must draw from, and parameter by parameter.
#include "kernels/cpu/sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/gumbel.h"

namespace serval {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

struct Drawn {
  SampleResult result;
  std::vector<TopLogprob> top;
};

// A row whose history is counted before it is drawn, but for the last outputs, which are handed over as
// recent.
struct TestRow : SampleRow {
  const int32_t* history = nullptr;
  int num_history = 0;
  int num_prompt = 0;
  int recent_outputs = 0;
};

ThreadPool& pool() {
  static ThreadPool threads(2, false);
  return threads;
}

// Samples rows of one vocabulary in one call.
std::vector<Drawn> sample(std::vector<std::vector<float>> rows, const std::vector<TestRow>& params,
                          int threads = 2, const std::string& isa = "auto") {
  static ThreadPool one(1, false);
  static SampleScratch scratch;
  const int64_t vocab = static_cast<int64_t>(rows[0].size());
  std::vector<float> logits;
  for (const auto& row : rows) logits.insert(logits.end(), row.begin(), row.end());
  int stride = 0;
  for (const TestRow& p : params) stride = std::max(stride, p.num_top);
  std::vector<SampleResult> results(rows.size());
  std::vector<TopLogprob> top(rows.size() * stride + 1);
  std::vector<SampleRow> sample_params(params.begin(), params.end());
  std::vector<CountedTokens> counted;
  for (size_t i = 0; i < params.size(); ++i) {
    const TestRow& p = params[i];
    const int num_recent = std::min(p.recent_outputs, p.num_history - p.num_prompt);
    sample_params[i].counts_slot = static_cast<int>(i);
    sample_params[i].recent = p.history + p.num_history - num_recent;
    sample_params[i].num_recent = num_recent;
    counted.push_back({.slot = static_cast<int>(i),
                       .restart = true,
                       .tokens = p.history,
                       .num_tokens = p.num_history - num_recent,
                       .num_prompt = p.num_prompt});
  }
  const SampleArgs args{
      .logits = Tensor(logits.data(), DType::kF32, {static_cast<int64_t>(rows.size()), vocab}),
      .rows = sample_params.data(),
      .results = results.data(),
      .top = top.data(),
      .top_stride = stride,
      .counted = counted.data(),
      .num_counted = static_cast<int>(counted.size())};
  sample_rows(args, cpu::choose_kernels(isa).sample, threads == 1 ? one : pool(), scratch);
  std::vector<Drawn> drawn(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    drawn[i].result = results[i];
    const auto begin = top.begin() + static_cast<int64_t>(i) * stride;
    if (results[i].finite && params[i].num_top > 0) drawn[i].top.assign(begin, begin + params[i].num_top);
  }
  return drawn;
}

Drawn sample_one(const std::vector<float>& row, const TestRow& params) {
  return sample({row}, {params})[0];
}

std::vector<float> random_logits(std::mt19937_64& rng, int vocab, float spread) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> row(vocab);
  for (float& v : row) v = normal(rng);
  return row;
}

// What is left of a row after every filter, as the definition says it, and how close any decision was.
struct Reference {
  std::vector<double> changed;      // logits after mask, bias, penalties, bans
  std::vector<double> probability;  // of the filtered softmax; 0 for filtered tokens
  double filter_margin = 1;         // smallest relative distance of a token to a filter's edge
  int32_t token = -1;
  double draw_margin = 1;  // winner's lead
};

Reference refer(const std::vector<float>& row, const TestRow& p) {
  const int vocab = static_cast<int>(row.size());
  Reference ref;
  ref.changed.assign(row.begin(), row.end());
  auto& l = ref.changed;
  if (p.mask != nullptr)
    for (int t = 0; t < vocab; ++t)
      if ((p.mask[t / 32] >> (t % 32) & 1) == 0) l[t] = -kInf;
  for (int i = 0; i < p.num_logit_bias; ++i) l[p.logit_bias[i].token] += p.logit_bias[i].bias;
  std::vector<int> output(vocab), any(vocab);
  for (int i = 0; i < p.num_history; ++i) {
    any[p.history[i]]++;
    if (i >= p.num_prompt) output[p.history[i]]++;
  }
  for (int t = 0; t < vocab; ++t) {
    if (any[t] > 0) l[t] = l[t] > 0 ? l[t] / p.repetition_penalty : l[t] * p.repetition_penalty;
    l[t] -= double{p.frequency_penalty} * output[t];
    if (output[t] > 0) l[t] -= p.presence_penalty;
  }
  for (int i = 0; i < p.num_banned; ++i) l[p.banned[i]] = -kInf;

  std::vector<int> order(vocab);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return l[a] > l[b]; });
  const double lead = vocab > 1 ? l[order[0]] - l[order[1]] : 1;
  if (p.temperature < kGreedyTemperature) {
    ref.token = order[0];
    ref.draw_margin = lead == 0 ? 1 : lead;
    return ref;
  }
  int kept = vocab;
  if (p.top_k > 0 && p.top_k < vocab) {
    kept = p.top_k;
    const double gap = l[order[kept - 1]] - l[order[kept]];
    if (gap != 0) ref.filter_margin = std::min(ref.filter_margin, gap);
  }
  std::vector<double> weight(vocab);
  double total = 0;
  for (int i = 0; i < kept; ++i)
    total += weight[order[i]] = std::exp((l[order[i]] - l[order[0]]) / p.temperature);
  if (p.top_p < 1) {
    double sum = 0;
    int nucleus = 0;
    while (nucleus < kept && (nucleus == 0 || sum < p.top_p * total)) {
      sum += weight[order[nucleus++]];
      ref.filter_margin = std::min(ref.filter_margin, std::abs(sum / total - p.top_p));
    }
    for (int i = nucleus; i < kept; ++i) weight[order[i]] = 0;
    if (nucleus < kept && l[order[nucleus]] != l[order[nucleus - 1]])
      ref.filter_margin = std::min(ref.filter_margin, l[order[nucleus - 1]] - l[order[nucleus]]);
  }
  for (double& w : weight) {
    if (p.min_p > 0 && w > 0) ref.filter_margin = std::min(ref.filter_margin, std::abs(w / p.min_p - 1));
    if (w < p.min_p) w = 0;
  }
  const double sum = std::accumulate(weight.begin(), weight.end(), 0.0);
  double best = -kInf, second = -kInf;
  for (int t = 0; t < vocab; ++t) {
    if (weight[t] <= 0) continue;
    const double score = l[t] / p.temperature + gumbel_noise(p.seed, p.position, t);
    if (score > best) {
      second = best;
      best = score;
      ref.token = t;
    } else {
      second = std::max(second, score);
    }
  }
  ref.draw_margin = best - second;
  ref.probability = weight;
  for (double& w : ref.probability) w /= sum;
  return ref;
}

TEST(Sample, DrawsTheTokenThatADoublePrecisionFullSortDraws) {
  std::mt19937_64 rng(1);
  const int kVocabs[] = {1, 5, 63, 64, 65, 1000, 4099};
  int compared = 0;
  constexpr int kCases = 3000;
  for (int c = 0; c < kCases; ++c) {
    const int vocab = kVocabs[rng() % std::size(kVocabs)];
    std::vector<float> row = random_logits(rng, vocab, 0.5f + static_cast<float>(rng() % 5));
    if (rng() % 4 == 0)
      for (float& v : row) v = std::round(v);  // ties everywhere
    if (rng() % 4 == 0)
      for (float& v : row) v = rng() % 3 == 0 ? -kInf : v;
    row[rng() % vocab] = 1.5f;
    TestRow p;
    p.seed = rng();
    p.position = static_cast<int64_t>(rng() % 5000);
    const float kTemperatures[] = {0, 1e-6f, 0.3f, 0.7f, 1, 1.5f};
    p.temperature = kTemperatures[rng() % 6];
    if (rng() % 2) p.top_k = 1 + static_cast<int>(rng() % (vocab + 3));
    if (rng() % 2) p.top_p = static_cast<float>(rng() % 1000) / 1000;
    if (rng() % 3 == 0) p.min_p = static_cast<float>(rng() % 500) / 1000;
    std::vector<int32_t> history;
    for (uint64_t i = rng() % 40; i > 0; --i) history.push_back(static_cast<int32_t>(rng() % vocab));
    p.history = history.data();
    p.num_history = static_cast<int>(history.size());
    p.num_prompt = p.num_history / 2;
    p.recent_outputs = static_cast<int>(rng() % 6);
    if (rng() % 3 == 0) p.repetition_penalty = rng() % 2 ? 1.3f : 0.8f;
    if (rng() % 3 == 0) p.presence_penalty = 0.6f;
    if (rng() % 3 == 0) p.frequency_penalty = -0.4f;
    std::vector<LogitBias> bias;
    for (uint64_t i = rng() % 3; i > 0; --i) bias.push_back({static_cast<int32_t>(rng() % vocab), 2.0f});
    p.logit_bias = bias.data();
    p.num_logit_bias = static_cast<int>(bias.size());
    std::vector<uint32_t> mask((vocab + 31) / 32);
    for (uint32_t& word : mask) word = static_cast<uint32_t>(rng()) | static_cast<uint32_t>(rng());
    if (rng() % 3 == 0) p.mask = mask.data();
    const int32_t banned = static_cast<int32_t>(rng() % vocab);
    if (rng() % 3 == 0) {
      p.banned = &banned;
      p.num_banned = 1;
    }
    const Reference ref = refer(row, p);
    if (*std::max_element(ref.changed.begin(), ref.changed.end()) == -kInf) {
      EXPECT_FALSE(sample_one(row, p).result.finite);
      continue;
    }
    if (ref.filter_margin < 1e-5 || ref.draw_margin < 1e-4) continue;  // float rounding may decide
    ++compared;
    ASSERT_EQ(sample_one(row, p).result.token, ref.token)
        << "case " << c << " vocab " << vocab << " T " << p.temperature << " k " << p.top_k << " p "
        << p.top_p << " min_p " << p.min_p;
  }
  EXPECT_GT(compared, kCases * 8 / 10);
}

constexpr int kDraws = 20000;

// Pearson's statistic of so many draws against what each token's are to be; tokens of small expectation pooled.
void expect_counts(const std::vector<int>& counts, const std::vector<double>& probability) {
  double chi2 = 0, pooled_expected = 0, pooled_count = 0;
  int cells = 0;
  for (size_t t = 0; t < counts.size(); ++t) {
    const double expected = probability[t] * kDraws;
    if (expected == 0) {
      EXPECT_EQ(counts[t], 0) << "filtered token " << t << " was drawn";
    } else if (expected < 5) {
      pooled_expected += expected;
      pooled_count += counts[t];
    } else {
      chi2 += (counts[t] - expected) * (counts[t] - expected) / expected;
      ++cells;
    }
  }
  if (pooled_expected > 0) {
    chi2 +=
        (pooled_count - pooled_expected) * (pooled_count - pooled_expected) / std::max(pooled_expected, 1.0);
    ++cells;
  }
  const double freedom = cells - 1;
  // Mean and standard deviation of chi-square; five deviations is one run in a million, and the seeds are
  // fixed.
  EXPECT_LT(chi2, freedom + 5 * std::sqrt(2 * freedom)) << cells << " cells";
  EXPECT_GT(chi2, freedom - 5 * std::sqrt(2 * freedom)) << cells << " cells";
}

// Draws over many seeds (or positions) against the filtered softmax.
void expect_distribution(const std::vector<float>& row, TestRow p, bool vary_position) {
  constexpr int kRowsPerCall = 500;
  std::vector<int> counts(row.size());
  for (int done = 0; done < kDraws; done += kRowsPerCall) {
    std::vector<TestRow> params(kRowsPerCall, p);
    for (int i = 0; i < kRowsPerCall; ++i)
      (vary_position ? reinterpret_cast<uint64_t&>(params[i].position) : params[i].seed) +=
          static_cast<uint64_t>(done + i);
    for (const Drawn& d : sample(std::vector(kRowsPerCall, row), params)) counts[d.result.token]++;
  }
  expect_counts(counts, refer(row, p).probability);
}

TEST(Sample, DrawsFollowTheFilteredSoftmaxOverSeedsAndPositions) {
  std::mt19937_64 rng(2);
  const std::vector<float> row = random_logits(rng, 150, 1.5f);
  for (const bool vary_position : {false, true}) {
    TestRow p;
    p.seed = 77;
    p.position = 5;
    expect_distribution(row, p, vary_position);
    p.temperature = 0.6f;
    p.top_p = 0.9f;
    expect_distribution(row, p, vary_position);
    p.top_k = 20;
    p.min_p = 0.02f;
    expect_distribution(row, p, vary_position);
    p.top_k = 0;
    p.top_p = 1;
    p.temperature = 1.7f;
    expect_distribution(row, p, vary_position);
  }
}

// Guesses drawn from other logits by the same filters, or certain ones: what is drawn in the end is distributed as without
// them, and as many guesses are taken as the two distributions have in common.
void expect_rejection(const std::vector<float>& row, const std::vector<float>& guessing, TestRow p, bool is_certain) {
  constexpr int kRowsPerCall = 500;
  const size_t vocab = row.size();
  std::vector<int> counts(vocab);
  int num_taken = 0;
  for (int done = 0; done < kDraws; done += kRowsPerCall) {
    std::vector<float> drawn_by(kRowsPerCall * vocab);
    std::vector<TestRow> params(kRowsPerCall, p);
    for (int i = 0; i < kRowsPerCall; ++i) {
      params[i].seed += static_cast<uint64_t>(done + i);
      params[i].drawn_by = drawn_by.data() + i * vocab;
    }
    const std::vector<Drawn> guesses = sample(std::vector(kRowsPerCall, guessing), params);
    std::vector<int32_t> tokens(kRowsPerCall);
    std::vector<GuessRule> rules(kRowsPerCall);
    for (int i = 0; i < kRowsPerCall; ++i) {
      tokens[i] = is_certain ? 3 : guesses[i].result.token;
      rules[i] = {.guesses = &tokens[i], .num_guesses = 1, .drawn_by = is_certain ? nullptr : drawn_by.data() + i * vocab};
      params[i].drawn_by = nullptr;
      params[i].guess = &rules[i];
      params[i].seed ^= 0x5555;
    }
    const std::vector<Drawn> drawn = sample(std::vector(kRowsPerCall, row), params);
    for (int i = 0; i < kRowsPerCall; ++i) {
      ++counts[drawn[i].result.token];
      num_taken += drawn[i].result.token == tokens[i];
    }
  }
  const std::vector<double> of_target = refer(row, p).probability, of_guess = refer(guessing, p).probability;
  expect_counts(counts, of_target);
  double common = 0;
  for (size_t t = 0; t < vocab; ++t) common += is_certain ? (t == 3 ? of_target[t] : 0) : std::min(of_target[t], of_guess[t]);
  EXPECT_NEAR(num_taken, common * kDraws, 5 * std::sqrt(common * (1 - common) * kDraws) + 1);
}

TEST(Sample, GuessesTakenByRejectionLeaveTheDistribution) {
  std::mt19937_64 rng(9);
  const std::vector<float> row = random_logits(rng, 90, 1.5f);
  std::vector<float> guessing = random_logits(rng, 90, 1.0f);
  for (size_t t = 0; t < row.size(); ++t) guessing[t] += 0.7f * row[t];
  for (const bool is_certain : {false, true}) {
    TestRow p;
    p.seed = 1234;
    p.position = 9;
    expect_rejection(row, guessing, p, is_certain);
    p.temperature = 0.7f;
    p.top_k = 30;
    expect_rejection(row, guessing, p, is_certain);
    p.top_p = 0.97f;
    p.min_p = 0.005f;
    expect_rejection(row, guessing, p, is_certain);
  }
}

TEST(Sample, TakesTheMostProbableOfTheGuessesThatAreTypical) {
  const std::vector<float> row = {std::log(0.5f), std::log(0.3f), std::log(0.15f), std::log(0.05f)};  // from 0.09 on
  const auto taken = [&](const std::vector<int32_t>& guesses, uint64_t seed, float temperature = 1) {
    const GuessRule rule{.is_typical = true, .guesses = guesses.data(), .num_guesses = static_cast<int>(guesses.size())};
    TestRow p;
    p.seed = seed;
    p.temperature = temperature;
    p.guess = &rule;
    return sample_one(row, p).result.token;
  };
  std::vector<int> counts(4);
  for (uint64_t seed = 0; seed < 200; ++seed) {
    EXPECT_EQ(taken({2}, seed), 2);
    EXPECT_EQ(taken({2, 1, 3}, seed), 1);
    EXPECT_EQ(taken({2, 3}, seed, 0), 0) << "the largest, at temperature 0";
    ++counts[taken({3}, seed)];
  }
  EXPECT_GT(counts[0], 70) << "a guess that is not typical leaves the row its own draw";
  EXPECT_LT(counts[3], 30);
}

TEST(Sample, ConsecutiveTokensOfOneSeedAreIndependent) {
  // Two fair coins at neighbouring positions, and at one position of the seeds of two choices: four equal
  // outcomes.
  const std::vector<float> row = {0, 0};
  for (const bool choices : {false, true}) {
    int outcomes[4] = {};
    constexpr int kPairs = 4000;
    for (int i = 0; i < kPairs; ++i) {
      TestRow a, b;
      a.seed = b.seed = static_cast<uint64_t>(i);
      if (choices) {
        b.seed += 0x9e3779b97f4a7c15ull;
      } else {
        b.position = 1;
      }
      const auto drawn = sample({row, row}, {a, b});
      outcomes[drawn[0].result.token * 2 + drawn[1].result.token]++;
    }
    for (const int count : outcomes) EXPECT_NEAR(count, kPairs / 4, 140);  // five deviations
  }
}

TEST(Sample, NoiseIsTheOneThatOtherDevicesMustReproduce) {
  // SplitMix64's finaliser is a bijection with known values: mix64(golden) is the first output of the
  // published generator at seed 0.
  EXPECT_EQ(mix64(0x9e3779b97f4a7c15ull), 0xe220a8397b1dcdafull);
  double sum = 0;
  double sum_of_squares = 0;
  constexpr int kTokens = 200000;
  for (int t = 0; t < kTokens; ++t) {
    const double u = token_uniform(noise_stream(3, 4), t);
    EXPECT_GT(u, 0);
    EXPECT_LT(u, 1);
    EXPECT_GE(exponential_time(u), u);
    const double g = gumbel_noise(3, 4, t);
    sum += g;
    sum_of_squares += g * g;
  }
  const double mean = sum / kTokens;
  EXPECT_NEAR(mean, 0.5772, 0.015);  // Euler's constant
  EXPECT_NEAR(sum_of_squares / kTokens - mean * mean, M_PI * M_PI / 6,
              0.04);  // the Gumbel distribution's variance
}

TEST(Sample, GreedyTakesTheLargestAndTheLowestIdOfEquals) {
  for (const int vocab : {3, 64, 130, 1000}) {
    std::vector<float> row(vocab, -1);
    TestRow p;
    p.temperature = 0;
    EXPECT_EQ(sample_one(row, p).result.token, 0);
    row[vocab - 1] = row[vocab / 2] = 4;
    EXPECT_EQ(sample_one(row, p).result.token, vocab / 2);
  }
}

TEST(Sample, TiesAtTheEdgeOfTopKAndTopPKeepTheLowestIds) {
  const std::vector<float> row(200, 1.0f);
  TestRow p;
  p.temperature = 2;
  for (p.seed = 0; p.seed < 300; ++p.seed) {
    p.top_k = 3;
    p.top_p = 1;
    EXPECT_LT(sample_one(row, p).result.token, 3);
    p.top_k = 0;
    p.top_p = 0.0199f;  // 4 of 200 equal tokens reach it, 3 do not
    EXPECT_LT(sample_one(row, p).result.token, 4);
    p.top_p = 0;  // at least one
    EXPECT_EQ(sample_one(row, p).result.token, 0);
  }
}

TEST(Sample, PenaltiesCountPromptAndOutputAsTheirDefinitionsSay) {
  // Token 0 leads by a little; which penalty unseats it depends on where it occurred.
  const std::vector<float> row = {2.0f, 1.9f, -3.0f};
  const std::vector<int32_t> history = {0, 0, 1};  // prompt 0 0, output 1
  TestRow p;
  p.temperature = 0;
  p.history = history.data();
  p.num_history = 3;
  p.num_prompt = 2;
  EXPECT_EQ(sample_one(row, p).result.token, 0);
  p.presence_penalty = -0.05f;  // raises 1, the only output token, by too little
  EXPECT_EQ(sample_one(row, p).result.token, 0);
  p.presence_penalty = -0.2f;
  EXPECT_EQ(sample_one(row, p).result.token, 1);
  p.presence_penalty = 0;
  p.num_prompt = 0;  // now 0 occurs twice in the output, 1 once
  p.frequency_penalty = 0.09f;
  EXPECT_EQ(sample_one(row, p).result.token, 0);
  p.frequency_penalty = 0.11f;
  EXPECT_EQ(sample_one(row, p).result.token, 1);
  p.frequency_penalty = 0;
  p.repetition_penalty = 10;  // both positives fall to 0.2 and 0.19: once for each distinct token
  EXPECT_EQ(sample_one(row, p).result.token, 0);
  p.recent_outputs = 2;
  EXPECT_EQ(sample_one(row, p).result.token, 0);
  p.recent_outputs = 0;
  const std::vector<float> negative = {-1.0f, -1.5f};
  p.num_history = 1;  // 0 alone: multiplied, as it is negative
  p.repetition_penalty = 1.6f;
  EXPECT_EQ(sample_one(negative, p).result.token, 1);
}

TEST(Sample, MaskBiasAndBansDecideWhoMayWin) {
  std::vector<float> row(100, 0.0f);
  row[70] = 5;
  TestRow p;
  p.temperature = 0;
  std::vector<uint32_t> mask = {0xffffffffu, 0xffffffffu, ~(1u << 6), 0xfu};
  p.mask = mask.data();
  EXPECT_EQ(sample_one(row, p).result.token, 0);
  p.mask = nullptr;
  const std::vector<LogitBias> bias = {{42, 3.0f}, {42, 3.0f}};
  p.logit_bias = bias.data();
  p.num_logit_bias = 2;
  EXPECT_EQ(sample_one(row, p).result.token, 42) << "biases of one token add up";
  const std::vector<int32_t> banned = {42, 70};
  p.banned = banned.data();
  p.num_banned = 2;
  EXPECT_EQ(sample_one(row, p).result.token, 0);
  mask = {1u << 9, 0, 0, 0};
  p.mask = mask.data();
  p.temperature = 1;
  for (p.seed = 0; p.seed < 50; ++p.seed)
    EXPECT_EQ(sample_one(row, p).result.token, 9) << "the only allowed token";
}

TEST(Sample, ReportsRawLogProbabilitiesRanksAndTheBestTokens) {
  std::mt19937_64 rng(3);
  for (const int vocab : {20, 64, 1000, 5000}) {
    const std::vector<float> row = random_logits(rng, vocab, 3);
    std::vector<int> order(vocab);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return row[a] > row[b]; });
    double sum = 0;
    for (const float v : row) sum += std::exp(static_cast<double>(v));
    TestRow p;
    p.temperature = 0;
    p.num_top = 20;
    const int32_t best = order[0];
    p.banned = &best;  // changes the logits: what is reported must not notice
    p.num_banned = 1;
    const Drawn d = sample_one(row, p);
    EXPECT_EQ(d.result.token, order[1]);
    EXPECT_EQ(d.result.rank, 2);
    EXPECT_NEAR(d.result.logprob, row[order[1]] - std::log(sum), 2e-6);
    for (int i = 0; i < 20; ++i) {
      EXPECT_EQ(d.top[i].token, order[i]);
      EXPECT_NEAR(d.top[i].logprob, row[order[i]] - std::log(sum), 2e-6);
    }
    p.forced = order[vocab - 1];
    const Drawn forced = sample_one(row, p);
    EXPECT_EQ(forced.result.token, order[vocab - 1]);
    EXPECT_EQ(forced.result.rank, vocab);
    EXPECT_NEAR(forced.result.logprob, row[order[vocab - 1]] - std::log(sum), 2e-6);
    EXPECT_EQ(forced.top[0].token, order[0]);
  }
}

TEST(Sample, ARowThatCannotBeSampledFailsAlone) {
  std::mt19937_64 rng(4);
  const std::vector<float> good = random_logits(rng, 300, 2);
  std::vector<float> nan = good, infinite = good;
  nan[299] = std::numeric_limits<float>::quiet_NaN();
  infinite[17] = kInf;
  const std::vector<float> nothing(300, -kInf);
  TestRow p;
  p.seed = 9;
  TestRow masked = p;
  const std::vector<uint32_t> mask(10, 0);
  masked.mask = mask.data();
  const auto drawn = sample({good, nan, infinite, nothing, good, good}, {p, p, p, p, masked, p});
  const bool kFinite[] = {true, false, false, false, false, true};
  for (int i = 0; i < 6; ++i) EXPECT_EQ(drawn[i].result.finite, kFinite[i]) << i;
  EXPECT_EQ(drawn[0].result.token, drawn[5].result.token);
  EXPECT_EQ(drawn[0].result.token, sample_one(good, p).result.token);
}

TEST(Sample, ARowDoesNotDependOnItsNeighboursOrOnTheThread) {
  std::mt19937_64 rng(5);
  std::vector<std::vector<float>> rows;
  std::vector<TestRow> params;
  std::vector<int32_t> history = {1, 2, 3, 3, 3, 500, 7};
  for (int i = 0; i < 40; ++i) {
    rows.push_back(random_logits(rng, 777, 2));
    TestRow p;
    p.seed = rng();
    p.temperature = i % 5 == 0 ? 0 : 0.9f;
    p.top_k = i % 3 == 0 ? 30 : 0;
    p.top_p = i % 4 == 0 ? 0.8f : 1;
    p.num_top = i % 7 - 1;
    if (i % 2) {
      p.history = history.data();
      p.num_history = 7;
      p.frequency_penalty = 0.5f;
      p.repetition_penalty = 1.2f;
    }
    params.push_back(p);
  }
  const auto together = sample(rows, params);
  const auto serial = sample(rows, params, 1);
  for (size_t i = 0; i < rows.size(); ++i) {
    const Drawn alone = sample_one(rows[i], params[i]);
    for (const Drawn* other : {&together[i], &serial[i]}) {
      EXPECT_EQ(other->result.token, alone.result.token);
      EXPECT_EQ(other->result.logprob, alone.result.logprob);
      ASSERT_EQ(other->top.size(), alone.top.size());
      for (size_t j = 0; j < alone.top.size(); ++j) {
        EXPECT_EQ(other->top[j].token, alone.top[j].token);
        EXPECT_EQ(other->top[j].logprob, alone.top[j].logprob);
      }
    }
  }
}

TEST(Sample, EveryInstructionSetGivesTheSameBits) {
  std::mt19937_64 rng(21);
  for (const int vocab : {1, 63, 64, 100, 5003}) {
    std::vector<std::vector<float>> rows;
    std::vector<TestRow> params;
    std::vector<int32_t> history(300);
    for (int32_t& t : history) t = static_cast<int32_t>(rng() % vocab);
    for (int i = 0; i < 60; ++i) {
      rows.push_back(random_logits(rng, vocab, 1 + static_cast<float>(i % 6)));
      if (i % 7 == 0) rows.back()[rng() % vocab] = -kInf;
      if (i % 20 == 0) rows.back()[rng() % vocab] = std::nanf("");
      TestRow p;
      p.seed = rng();
      p.temperature = i % 9 == 0 ? 0 : 0.4f + 0.1f * static_cast<float>(i % 9);
      if (i % 3 == 0) p.top_k = 1 + static_cast<int>(rng() % 40);
      if (i % 4 == 0) p.top_p = 0.9f;
      if (i % 5 == 0) p.min_p = 0.01f;
      if (i % 2 == 0) {
        p.history = history.data();
        p.num_history = static_cast<int>(rng() % 300);
        p.num_prompt = p.num_history / 3;
        p.recent_outputs = i % 5;
        p.repetition_penalty = 1.3f;
        p.presence_penalty = 0.2f;
        p.frequency_penalty = 0.1f;
      }
      p.num_top = std::min(vocab, i % 6 - 1);
      params.push_back(p);
    }
    const std::vector<Drawn> expected = sample(rows, params, 1, "generic");
    for (const std::string& isa : cpu::runnable_isas()) {
      const std::vector<Drawn> drawn = sample(rows, params, 1, isa);
      for (size_t i = 0; i < drawn.size(); ++i) {
        EXPECT_EQ(drawn[i].result.finite, expected[i].result.finite) << isa << " row " << i;
        EXPECT_EQ(drawn[i].result.token, expected[i].result.token) << isa << " row " << i;
        EXPECT_EQ(drawn[i].result.logprob, expected[i].result.logprob) << isa << " row " << i;
        EXPECT_EQ(drawn[i].result.rank, expected[i].result.rank) << isa << " row " << i;
        ASSERT_EQ(drawn[i].top.size(), expected[i].top.size());
        for (size_t j = 0; j < drawn[i].top.size(); ++j)
          EXPECT_EQ(drawn[i].top[j].logprob, expected[i].top[j].logprob) << isa << " row " << i;
      }
    }
  }
}

// Under UBSan: probabilities far below the smallest number are computed and then dropped.
TEST(Sample, ALowTemperatureLeavesTheLargestAlone) {
  std::mt19937_64 rng(22);
  std::vector<float> row = random_logits(rng, 3000, 100);
  row[123] = 2000;
  row[124] = -3e38f;
  for (const std::string& isa : cpu::runnable_isas()) {
    for (const float temperature : {0.01f, 2e-5f}) {
      TestRow p;
      p.temperature = temperature;
      p.num_top = 1;
      EXPECT_EQ(sample({row}, {p}, 1, isa)[0].result.token, 123);
      p.top_p = 0.9f;
      EXPECT_EQ(sample({row}, {p}, 1, isa)[0].result.token, 123);
    }
  }
}

}  // namespace
}  // namespace serval
