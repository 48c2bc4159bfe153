// Op cases of drawing tokens.
#include "tests/kernels/op_bench.h"

namespace serval::testing {
namespace {

// The draw itself is tried in sample_test.cc and sampler_test.cc; here, that tokens, log-probabilities and
// the token drawn last come out of the backend.
void check_sample(Backend& backend, WeightFormat weights) {
  Bench bench(backend, weights, 10);
  const auto context = backend.make_step_context(op_table_limits());
  const Values logits = bench.numbers({3, kVocab}, DType::kF32);
  std::vector<SampleRow> rows(3);
  for (int i = 0; i < 3; ++i) {
    rows[i].num_top = 2;
    rows[i].temperature = 0;
    rows[i].slot = i;
  }
  std::vector<SampleResult> results(3);
  std::vector<TopLogprob> top(6);
  context->wait_sampled(context->sample({.logits = logits.tensor,
                                  .rows = rows.data(),
                                  .results = results.data(),
                                  .top = top.data(),
                                  .top_stride = 2}));
  for (int i = 0; i < 3; ++i) {
    const auto row = logits.exact.begin() + i * kVocab;
    const auto best = std::max_element(row, row + kVocab);
    double sum = 0;
    for (int t = 0; t < kVocab; ++t) sum += std::exp(row[t] - *best);
    EXPECT_EQ(results[i].token, best - row);
    EXPECT_EQ(results[i].rank, 1);
    EXPECT_NEAR(results[i].logprob, -std::log(sum), 1e-5);
    EXPECT_EQ(top[2 * i].token, results[i].token);
    EXPECT_GE(top[2 * i].logprob, top[2 * i + 1].logprob);
  }
}

// More lists than a backend may have room for at once.
void check_sample_biased(Backend& backend, WeightFormat weights) {
  Bench bench(backend, weights, 11);
  const auto context = backend.make_step_context(op_table_limits());
  const Values logits = bench.numbers({kMaxRows, kVocab}, DType::kF32);
  std::vector<LogitBias> biases(static_cast<size_t>(kMaxRows) * kVocab);
  std::vector<SampleRow> rows(kMaxRows);
  for (int i = 0; i < kMaxRows; ++i) {
    for (int t = 0; t < kVocab; ++t) biases[i * kVocab + t] = {t, t == 3 * i % kVocab ? 100.0f : 0.0f};
    rows[i].temperature = 0;
    rows[i].logit_bias = biases.data() + i * kVocab;
    rows[i].num_logit_bias = kVocab;
  }
  std::vector<SampleResult> results(kMaxRows);
  context->wait_sampled(context->sample({.logits = logits.tensor, .rows = rows.data(), .results = results.data()}));
  for (int i = 0; i < kMaxRows; ++i) EXPECT_EQ(results[i].token, 3 * i % kVocab);
}

// Histories longer than a backend may have room for at once, then a step that adds to what was counted.
void check_sample_penalised(Backend& backend, WeightFormat weights) {
  constexpr int kRows = 4, kRepeats = 40;
  Bench bench(backend, weights, 12);
  const auto context = backend.make_step_context(op_table_limits());
  std::vector<std::vector<int32_t>> histories(kRows);
  std::vector<CountedTokens> counted(kRows);
  std::vector<SampleRow> rows(kRows);
  const auto target = [](int row) { return 5 + 3 * row; };
  const int32_t spare = 1;
  for (int i = 0; i < kRows; ++i) {
    for (int repeat = 0; repeat < kRepeats; ++repeat)
      for (int t = 0; t < kVocab; ++t)
        if (t != target(i) && t != spare) histories[i].push_back(t);
    counted[i] = {.slot = i,
                  .restart = true,
                  .tokens = histories[i].data(),
                  .num_tokens = static_cast<int>(histories[i].size())};
    rows[i].temperature = 0;
    rows[i].presence_penalty = 100;
    rows[i].counts_slot = i;
    rows[i].recent = &spare;
    rows[i].num_recent = 1;
  }
  std::vector<SampleResult> results(kRows);
  const auto draw = [&] {
    const Values logits = bench.numbers({kRows, kVocab}, DType::kF32);
    context->wait_sampled(context->sample({.logits = logits.tensor,
                                    .rows = rows.data(),
                                    .results = results.data(),
                                    .counted = counted.data(),
                                    .num_counted = kRows}));
  };
  draw();
  for (int i = 0; i < kRows; ++i) EXPECT_EQ(results[i].token, target(i)) << "the only token not seen";
  std::vector<int32_t> targets(kRows);
  for (int i = 0; i < kRows; ++i) {
    targets[i] = target(i);
    counted[i] = {.slot = i, .tokens = &targets[i], .num_tokens = 1};
    rows[i].num_recent = 0;
  }
  draw();
  for (int i = 0; i < kRows; ++i) EXPECT_EQ(results[i].token, spare) << "recent tokens are not counted";
}

}  // namespace

void add_sample_cases(std::vector<OpCase>& cases) {
  cases.push_back({"sample", check_sample});
  cases.push_back({"sample_biased", check_sample_biased});
  cases.push_back({"sample_penalised", check_sample_penalised});
}

}  // namespace serval::testing
