#include "loadtest/simulate_main.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <functional>
#include <iostream>
#include <mutex>
#include <random>
#include <stdexcept>
#include <thread>

#include "engine/engine.h"
#include "engine/model/model_config.h"
#include "engine/runner/model_runner.h"
#include "loadtest/load_options.h"
#include "loadtest/report.h"
#include "loadtest/simulate.h"

namespace serval {
namespace {

using namespace load;
using Clock = std::chrono::steady_clock;

struct Settings {
  std::string cost, fit, validate, routing = "least-loaded";
  int replicas = 1, find_replicas = 0;
  int max_num_seqs = 64, max_num_batched_tokens = 512, max_model_len = 2048, kv_blocks = 8192,
      block_size = 16;
};

struct SettingRow {
  const char* name;
  const char* value;
  const char* help;
  std::string Settings::*text;
  int Settings::*number;
};
const SettingRow kSettings[] = {
    {"--cost", "FILE", "step-time model: written by --fit, read otherwise", &Settings::cost, nullptr},
    {"--fit", "MODEL", "measure this machine's steps with the model, write the step-time model, and end",
     &Settings::fit, nullptr},
    {"--validate", "MODEL", "also run the workload on the real engine, without HTTP, and compare",
     &Settings::validate, nullptr},
    {"--replicas", "N", "servers (1)", nullptr, &Settings::replicas},
    {"--find-replicas", "MOST", "the fewest servers at which 99 % of the requests meet the SLOs", nullptr,
     &Settings::find_replicas},
    {"--routing", "KIND", "round-robin, least-loaded or prefix (least-loaded)", &Settings::routing, nullptr},
    {"--max-num-seqs", "N", "as serval serve (64)", nullptr, &Settings::max_num_seqs},
    {"--max-num-batched-tokens", "N", "as serval serve (512)", nullptr, &Settings::max_num_batched_tokens},
    {"--max-model-len", "N", "as serval serve (2048)", nullptr, &Settings::max_model_len},
    {"--kv-blocks", "N", "blocks of a server's KV cache (8192)", nullptr, &Settings::kv_blocks},
    {"--block-size", "N", "positions of a block (16)", nullptr, &Settings::block_size},
};

// Takes its own settings out of the arguments; the rest are load options.
Settings take_settings(std::vector<std::string>& arguments) {
  Settings settings;
  for (size_t i = 0; i < arguments.size();) {
    const auto row = std::find_if(std::begin(kSettings), std::end(kSettings),
                                  [&](const SettingRow& r) { return arguments[i] == r.name; });
    if (row == std::end(kSettings)) {
      ++i;
      continue;
    }
    if (i + 1 == arguments.size()) throw std::runtime_error(arguments[i] + " needs a value");
    const std::string& value = arguments[i + 1];
    if (row->text) {
      settings.*row->text = value;
    } else {
      char* end = nullptr;
      const long number = std::strtol(value.c_str(), &end, 10);
      if (value.empty() || *end != '\0' || number < 1 || number > 100'000'000)
        throw std::runtime_error(arguments[i] + " is '" + value + "'; it must be a whole number from 1");
      settings.*row->number = static_cast<int>(number);
    }
    arguments.erase(arguments.begin() + i, arguments.begin() + i + 2);
  }
  return settings;
}

SimulationOptions simulation(const Settings& settings) {
  SimulationOptions options;
  options.scheduler.max_num_seqs = settings.max_num_seqs;
  options.scheduler.max_num_batched_tokens = options.scheduler.max_prefill_chunk =
      settings.max_num_batched_tokens;
  options.scheduler.max_model_len = settings.max_model_len;
  options.scheduler.max_waiting = 10'000'000;
  options.geometry.block_size = settings.block_size;
  options.geometry.groups[0].num_blocks = settings.kv_blocks;
  options.replicas = settings.replicas;
  if (settings.routing == "round-robin")
    options.routing = Routing::kRoundRobin;
  else if (settings.routing == "prefix")
    options.routing = Routing::kPrefix;
  else if (settings.routing != "least-loaded")
    throw std::runtime_error("--routing is '" + settings.routing +
                             "'; it must be round-robin, least-loaded or prefix");
  return options;
}

// Runs a workload on the real engine at its own times; outcomes as a client without a network would see them.
class EngineRun {
 public:
  EngineRun(const std::string& model, const Settings& settings) : settings_(settings) {
    config_.scheduler = simulation(settings).scheduler;
    config_.scheduler.max_waiting = 100'000;
    config_.block_size = settings.block_size;
    const auto folder = resolve_model(model);
    config_.scheduler.max_model_len =
        std::min(config_.scheduler.max_model_len, read_model_config(folder).max_positions);
    runner_ = std::make_unique<ModelRunner>(folder, config_);
    engine_ = std::make_unique<Engine>(
        config_, runner_->plan().geometry,
        [this](const Batch& batch, ModelOutput& output) { step(batch, output); },
        [this](EventBatch& events) { see(events); });
  }

  std::vector<Outcome> run(const std::vector<PlannedRequest>& workload) {
    {
      std::lock_guard lock(mutex_);
      outcomes_.assign(workload.size(), {});
      open_ = static_cast<int>(workload.size());
      begin_ = Clock::now();
      base_ = next_id_;
    }
    for (size_t i = 0; i < workload.size(); ++i) {
      std::this_thread::sleep_until(begin_ + std::chrono::duration_cast<Clock::duration>(
                                                 std::chrono::duration<double>(workload[i].at_s)));
      Request request;
      request.id = next_id_++;
      request.prompt.assign(workload[i].token_ids.begin(), workload[i].token_ids.end());
      const int vocab = runner_->vocab_size();
      for (TokenId& id : request.prompt) id %= vocab;
      request.sampling.max_tokens = workload[i].output_tokens;
      request.sampling.ignore_eos = true;
      request.sampling.temperature = 0;
      outcomes_[i].intended_s = outcomes_[i].sent_s = workload[i].at_s;
      outcomes_[i].prompt_tokens = static_cast<int>(request.prompt.size());
      if (const auto submitted = engine_->submit(std::move(request)); !submitted)
        throw std::runtime_error(submitted.error().message);
    }
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [&] { return open_ == 0; });
    return outcomes_;
  }

  std::vector<StepSample> samples() const { return samples_; }
  void forget_samples() { samples_.clear(); }
  BlockGeometry geometry() const { return runner_->plan().geometry; }
  SchedulerConfig scheduler() const { return config_.scheduler; }

 private:
  // A step's cost begins where the one before ended, while there is more to do: scheduling and delivery are
  // part of it. A longer pause is taken for idleness.
  void step(const Batch& batch, ModelOutput& output) {
    constexpr auto kIdle = std::chrono::milliseconds(1);
    Clock::time_point begin = Clock::now();
    if (begin - last_end_ < kIdle) begin = last_end_;
    runner_->execute(batch, output);
    last_end_ = Clock::now();
    samples_.push_back(
        {shape_of(batch), std::chrono::duration<double, std::milli>(last_end_ - begin).count()});
  }
  void see(EventBatch& events) {
    const double now = std::chrono::duration<double>(Clock::now() - begin_).count();
    std::lock_guard lock(mutex_);
    for (const TokenEvent& event : events.events) {
      Outcome& outcome = outcomes_[event.request - base_];
      if (event.token >= 0) {
        outcome.token_s.push_back(now);
        outcome.output_tokens = event.num_output;
        outcome.cached_tokens = event.cached_tokens;
      }
      if (event.finish == FinishReason::kNone) continue;
      outcome.end_s = now;
      if (--open_ == 0) ended_.notify_one();
    }
    events.clear();
  }

  const Settings settings_;
  EngineConfig config_;
  std::unique_ptr<ModelRunner> runner_;
  std::mutex mutex_;
  std::condition_variable ended_;
  std::vector<Outcome> outcomes_;
  std::vector<StepSample> samples_;
  int open_ = 0;
  RequestId next_id_ = 1, base_ = 1;
  Clock::time_point begin_, last_end_;  // last_end_: the engine thread's
  std::unique_ptr<Engine> engine_;      // last: its thread uses what stands above
};

int fit(const Settings& settings) {
  if (settings.cost.empty()) throw std::runtime_error("--fit needs --cost FILE to write to");
  EngineRun run(settings.fit, settings);
  // All sizes of steps: few and many streams, short and long prompts, short and long contexts.
  WorkloadOptions options;
  options.send_token_ids = true;
  options.length_jitter = 0.8;
  for (const int streams : {1, 2, 4, 8, 16, 32, 64}) {
    if (streams > settings.max_num_seqs) break;
    for (const int input : {16, 128, run.scheduler().max_model_len / 4}) {
      options.seed = static_cast<uint64_t>(streams * 1000 + input);
      options.num_requests = streams;
      options.input_tokens = input;
      options.output_tokens = 48;
      if (streams == 1 && input == 16)
        run.run(synthetic_workload(options)), run.forget_samples();  // warms caches
      run.run(synthetic_workload(options));
    }
  }
  const StepCost cost = fit_step_cost(run.samples());
  std::vector<double> error;
  for (const StepSample& sample : run.samples())
    error.push_back(std::abs(cost.milliseconds(sample.shape) / sample.milliseconds - 1) * 100);
  const Percentiles p = percentiles(error);
  std::printf(
      "%zu steps: %.4f ms + %.4f per row + %.4f per sequence + %.4f per 1000 positions attended; off by %.1f "
      "%% (median), %.1f %% (p90)\n",
      error.size(), cost.step, cost.row, cost.seq, cost.context, p.p50, p.p90);
  write_file(settings.cost, cost_json(cost));
  return 0;
}

void compare(const Summary& predicted, const Summary& measured) {
  std::printf("\n%-12s%12s%12s%12s\n", "", "predicted", "measured", "pred/meas");
  const std::tuple<const char*, double, double> rows[] = {
      {"ttft p50", predicted.ttft_ms.p50, measured.ttft_ms.p50},
      {"ttft p90", predicted.ttft_ms.p90, measured.ttft_ms.p90},
      {"tpot p50", predicted.tpot_ms.p50, measured.tpot_ms.p50},
      {"tpot p90", predicted.tpot_ms.p90, measured.tpot_ms.p90},
      {"tokens/s", predicted.output_tokens_per_s, measured.output_tokens_per_s}};
  for (const auto& [name, a, b] : rows)
    std::printf("%-12s%12.2f%12.2f%12.3f\n", name, a, b, b > 0 ? a / b : 0);
}

}  // namespace

std::string simulate_help() {
  std::string out =
      "usage: serval simulate --fit MODEL --cost FILE\n       serval simulate --cost FILE [options]      "
      "options of serval bench say what to send\n\n";
  for (const SettingRow& row : kSettings) {
    std::string left = std::string("  ") + row.name + " " + row.value;
    left.resize(std::max<size_t>(left.size() + 1, 32), ' ');
    out += left + row.help + "\n";
  }
  return out + "\n" + load_options_help();
}

int simulate_main(std::vector<std::string> arguments) {
  const Settings settings = take_settings(arguments);
  if (!settings.fit.empty()) return fit(settings);
  if (settings.cost.empty())
    throw std::runtime_error(
        "serval simulate needs --cost FILE (made by --fit); serval simulate --help lists its options");
  LoadOptions load = parse_load_options(arguments);
  load.workload.send_token_ids = true;
  const std::vector<PlannedRequest> workload = make_workload(load);
  SimulationOptions options = simulation(settings);
  options.cost = read_cost(settings.cost);

  std::unique_ptr<EngineRun> real;
  if (!settings.validate.empty()) {
    real = std::make_unique<EngineRun>(settings.validate, settings);
    options.geometry = real->geometry();
    options.scheduler.max_model_len = real->scheduler().max_model_len;
  }
  const Clock::time_point begin = Clock::now();
  if (settings.find_replicas > 0) {
    const int needed = find_replicas(options, workload, load.slo, settings.find_replicas);
    if (needed == 0) {
      std::printf("%d replicas do not meet the SLOs\n", settings.find_replicas);
      return 1;
    }
    std::printf("%d replicas meet the SLOs\n", needed);
    options.replicas = needed;
  }
  Report report;
  report.label = "simulation";
  report.url = std::to_string(options.replicas) + " simulated replica" + (options.replicas == 1 ? "" : "s");
  report.model = settings.cost;
  report.slo = load.slo;
  report.outcomes = simulate(options, workload).outcomes;
  report.summary = summarise(report.outcomes, load.slo);
  report.summary.itl_ms = {};  // a simulation keeps the first and the last token's time only
  std::cout << report_text(report);
  std::printf("simulated in %.2f s\n", std::chrono::duration<double>(Clock::now() - begin).count());
  if (!load.json.empty()) write_file(load.json, report_json(report));
  if (real) {
    // Warms the machine, with prompts the prefix cache will not find again.
    std::vector<PlannedRequest> warmup(workload.begin(),
                                       workload.begin() + std::min<size_t>(8, workload.size()));
    for (PlannedRequest& request : warmup) std::reverse(request.token_ids.begin(), request.token_ids.end());
    real->run(warmup);
    compare(report.summary, summarise(real->run(workload), load.slo));
  }
  return 0;
}

}  // namespace serval
