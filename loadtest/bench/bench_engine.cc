#include "loadtest/bench/bench_engine.h"

#include <chrono>
#include <condition_variable>
#include <iomanip>
#include <mutex>
#include <ostream>
#include <vector>

#include "engine/engine.h"
#include "engine/runner/model_runner.h"
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

EngineConfig config_for(const DeviceConfig& device) {
  EngineConfig config;
  config.device = device;
  config.scheduler.max_num_seqs = kStreams[std::size(kStreams) - 1];
  config.scheduler.max_model_len = model_110m().max_positions;
  config.scheduler.enable_prefix_cache = false;
  return config;
}

class Bench {
 public:
  Bench(const std::filesystem::path& model, const EngineConfig& config)
      : runner_(model, config),
        engine_(config, runner_.plan().geometry, run_on(runner_),
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
  ModelRunner runner_;
  Engine engine_;  // last: its thread uses what stands above
};

}  // namespace

int bench_engine(const DeviceConfig& device, std::ostream& out) {
  const TempFolder folder;
  out << "writing a random model: 12 layers, hidden 768, vocabulary 32000, bfloat16\n" << std::flush;
  write_random_model(folder.path(), model_110m());
  Bench bench(folder.path(), config_for(device));
  out << std::fixed << std::setprecision(1);
  bench.decode_tokens_per_s(kStreams[0]);  // warms caches and clocks
  double first = 0, last = 0;
  for (const int streams : kStreams) {
    last = bench.decode_tokens_per_s(streams);
    if (first == 0) first = last;
    out << "decode, " << std::setw(2) << streams << " streams: " << std::setw(8) << last << " tokens/s, "
        << std::setw(4) << last / first << " times one stream\n"
        << std::flush;
  }
  out << "prefill, " << kPrefillPrompt << " tokens: " << std::setw(8) << bench.prefill_tokens_per_s()
      << " tokens/s\n";
  return 0;
}

}  // namespace serval
