#include "loadtest/bench/bench_engine.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <iomanip>
#include <iterator>
#include <memory>
#include <mutex>
#include <ostream>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/runner/load_model.h"
#include "kernels/base/check.h"
#include "kernels/gumbel.h"
#include "loadtest/bench/random_model.h"
#include "loadtest/bench/temp_folder.h"

namespace serval {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kStreams[] = {1, 8, 32};
constexpr int kDecodePrompt = 32;
constexpr int kDecodeTokens = 128;
constexpr int kPrefillPrompt = 1024;
constexpr int kTurns = 3;

RandomModel model_110m() {
  RandomModel model;
  model.dtype = DType::kBF16;
  model.vocab_size = 32000;
  model.hidden_size = 768;
  model.num_layers = 12;
  model.num_heads = 12;
  model.num_kv_heads = 4;
  model.head_dim = 64;
  model.intermediate_size = 2048;
  model.max_positions = 2048;
  return model;
}

// What the engine thread tells of the requests of one measurement. Decoding is timed while all streams run:
// from the step that gave the last of them its first token to the step that ends the first.
class Watch {
 public:
  void start(int streams) {
    const std::lock_guard lock(mutex_);
    streams_ = unfinished_ = streams;
    started_ = tokens_ = 0;
  }
  void see(const EventBatch& batch) {
    const Clock::time_point now = Clock::now();
    const std::lock_guard lock(mutex_);
    const bool all_ran = started_ == streams_ && unfinished_ == streams_;
    for (const TokenEvent& event : batch.events) {
      if (event.num_output == 1) ++started_;
      if (all_ran && event.token >= 0) ++tokens_;
      if (event.finish != FinishReason::kNone) --unfinished_;
    }
    if (all_ran) {
      end_ = now;
    } else if (started_ == streams_ && unfinished_ == streams_) {
      begin_ = now;
    }
    if (unfinished_ == 0) done_.notify_one();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return unfinished_ == 0; });
  }
  double decode_tokens_per_s() const {
    return tokens_ / std::chrono::duration<double>(end_ - begin_).count();
  }

 private:
  std::mutex mutex_;
  std::condition_variable done_;
  int streams_ = 0, started_ = 0, unfinished_ = 0;
  int64_t tokens_ = 0;
  Clock::time_point begin_, end_;
};

EngineConfig config_for(const EngineConfig& settings, const std::string& quantize) {
  EngineConfig config;
  config.device = settings.device;
  config.quantize = quantize;
  config.scheduler.max_num_seqs = kStreams[std::size(kStreams) - 1];
  config.scheduler.max_model_len = model_110m().max_positions;
  config.scheduler.enable_prefix_cache = false;
  return config;
}

class Bench {
 public:
  Bench(const std::filesystem::path& model, const EngineConfig& config)
      : backend_(make_backend(config.device)),
        runner_(load_model(model, config, *backend_)),
        engine_(config, runner_->plan().geometry, run_on(*runner_),
                [this](EventBatch& events) { watch_.see(events); }) {}

  double decode_tokens_per_s(int streams) {
    run(streams, kDecodePrompt, kDecodeTokens);
    return watch_.decode_tokens_per_s();
  }
  double prefill_tokens_per_s() {
    const Clock::time_point begin = Clock::now();
    run(1, kPrefillPrompt, 1);
    return kPrefillPrompt / std::chrono::duration<double>(Clock::now() - begin).count();
  }

 private:
  void run(int streams, int prompt_tokens, int output_tokens) {
    watch_.start(streams);
    for (int i = 0; i < streams; ++i) {
      Request request;
      request.id = ++requests_;
      for (int t = 0; t < prompt_tokens; ++t)
        request.prompt.push_back(static_cast<TokenId>(mix64(requests_ * kPrefillPrompt + t) % 32000));
      request.sampling.temperature = 0;
      request.sampling.max_tokens = output_tokens;
      request.sampling.ignore_eos = true;
      SERVAL_CHECK(engine_.submit(std::move(request)).ok());
    }
    watch_.wait();
  }

  Watch watch_;
  uint64_t requests_ = 0;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<ModelRunner> runner_;
  Engine engine_;  // last: its thread uses what stands above
};

}  // namespace

int bench_engine(const EngineConfig& settings, std::ostream& out) {
  const TempFolder folder;
  out << "writing a random model: 12 layers, hidden 768, vocabulary 32000, bfloat16\n" << std::flush;
  write_random_model(folder.path(), model_110m());
  std::vector<std::string> formats = {"off"};
  if (settings.quantize != "off") formats.push_back(settings.quantize);
  std::vector<std::unique_ptr<Bench>> benches;
  for (const std::string& quantize : formats)
    benches.push_back(std::make_unique<Bench>(folder.path(), config_for(settings, quantize)));
  out << std::fixed << std::setprecision(1);
  // Medians of some measurements of each model, made in turns; returns that of the model as it is.
  const auto measure = [&](const std::string& what, const auto& speed_of) {
    std::vector<std::vector<double>> speeds(benches.size());
    for (int turn = 0; turn < kTurns; ++turn)
      for (size_t i = 0; i < benches.size(); ++i) speeds[i].push_back(speed_of(*benches[i]));
    for (std::vector<double>& of : speeds) std::sort(of.begin(), of.end());
    const double plain = speeds[0][kTurns / 2];
    out << what << std::setw(8) << plain << " tokens/s";
    for (size_t i = 1; i < benches.size(); ++i) {
      const double speed = speeds[i][kTurns / 2];
      out << "; " << formats[i] << std::setw(8) << speed << ", " << std::setprecision(2) << speed / plain
          << std::setprecision(1) << " times as fast";
    }
    out << "\n" << std::flush;
    return plain;
  };
  for (const auto& bench : benches) bench->decode_tokens_per_s(kStreams[0]);  // warms caches and clocks
  double first = 0, last = 0;
  for (const int streams : kStreams) {
    last = measure("decode, " + std::to_string(streams) + " streams: ",
                   [&](Bench& bench) { return bench.decode_tokens_per_s(streams); });
    if (first == 0) first = last;
  }
  out << kStreams[std::size(kStreams) - 1] << " streams are " << last / first << " times one\n";
  measure("prefill, " + std::to_string(kPrefillPrompt) + " tokens: ",
          [](Bench& bench) { return bench.prefill_tokens_per_s(); });
  return 0;
}

}  // namespace serval
