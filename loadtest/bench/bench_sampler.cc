#include "loadtest/bench/bench_sampler.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <iomanip>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/sample.h"

namespace serval {
namespace {

constexpr int kVocab = 151'936;
constexpr int kRuns = 15;
constexpr float kSpread = 3;  // of the logits, which are normal

double thread_microseconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) * 1e-3;
}

class Bench {
 public:
  Bench(const cpu::KernelTable& kernels, std::ostream& out) : kernels_(kernels), out_(out) {
    std::mt19937_64 rng(1);
    std::normal_distribution<float> normal(0, kSpread);
    for (float& v : logits_) v = normal(rng);
    // Words of a text are few and repeat: Zipf's law, roughly.
    for (int32_t& t : history_)
      t = static_cast<int32_t>(kVocab * std::pow(std::uniform_real_distribution<double>()(rng), 4));
    out << "\nsampling, one row of " << kVocab << " logits, one thread, " << kernels.name
        << ": microseconds of its time, medians of " << kRuns << "\n";
  }

  void row(const std::string& name, SampleRow params, int num_history = 0) {
    CountedTokens all{.restart = true, .tokens = history_.data(), .num_tokens = num_history};
    CountedTokens next{.tokens = history_.data(), .num_tokens = 1};
    if (num_history > 0) {
      params.counts_slot = 0;
      draw(params, &all);
    }
    std::vector<double> times;
    for (int run = 0; run < kRuns; ++run) {
      params.seed = run;
      times.push_back(draw(params, num_history > 0 ? &next : nullptr));
    }
    std::nth_element(times.begin(), times.begin() + kRuns / 2, times.end());
    out_ << "  " << std::left << std::setw(40) << name << std::right << std::setw(10) << std::setprecision(0)
         << times[kRuns / 2] << "\n";
  }

 private:
  double draw(const SampleRow& params, const CountedTokens* counted) {
    row_ = logits_;
    SampleResult result;
    const SampleArgs args{.logits = Tensor(row_.data(), DType::kF32, {1, kVocab}),
                          .rows = &params,
                          .results = &result,
                          .top = top_.data(),
                          .top_stride = static_cast<int>(top_.size()),
                          .counted = counted,
                          .num_counted = counted != nullptr ? 1 : 0};
    const double begin = thread_microseconds();
    sample_rows(args, kernels_.sample, pool_, scratch_);
    return thread_microseconds() - begin;
  }

  const cpu::KernelTable& kernels_;
  std::ostream& out_;
  ThreadPool pool_{1, false};
  SampleScratch scratch_;
  std::vector<float> logits_ = std::vector<float>(kVocab), row_;
  std::vector<int32_t> history_ = std::vector<int32_t>(131'072);
  std::vector<TopLogprob> top_ = std::vector<TopLogprob>(20);
};

}  // namespace

void bench_sampler(const cpu::KernelTable& kernels, std::ostream& out) {
  Bench bench(kernels, out);
  bench.row("greedy", {.temperature = 0});
  bench.row("temperature 1", {});
  bench.row("top_k 50", {.top_k = 50});
  bench.row("top_p 0.9", {.top_p = 0.9f});
  bench.row("temperature 0.6, top_p 0.9", {.temperature = 0.6f, .top_p = 0.9f});
  bench.row("greedy, 20 log-probabilities", {.temperature = 0, .num_top = 20});
  for (const int history : {1'000, 8'000, 32'000, 131'072}) {
    bench.row("greedy, repetition penalty, history " + std::to_string(history),
              {.temperature = 0, .repetition_penalty = 1.1f}, history);
  }
}

}  // namespace serval
