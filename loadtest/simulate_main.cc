#include "loadtest/simulate_main.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <memory>
#include <stdexcept>

#include "loadtest/engine_run.h"
#include "loadtest/fit_recording.h"
#include "loadtest/load_options.h"
#include "loadtest/report.h"
#include "loadtest/simulate.h"

namespace serval {
namespace {

using namespace load;
using Clock = std::chrono::steady_clock;

struct Settings {
  std::string cost, fit, fit_recording, fit_report, validate, against, routing = "least-loaded";
  double replicas = 1, prefill_replicas = 0, find_replicas = 0;
  double max_num_seqs = 64, max_num_batched_tokens = 512, max_model_len = 2048, kv_blocks = 8192,
         block_size = 16;
  double kv_bytes_per_token = 0, link_gbytes_per_s = 0, link_latency_ms = 0;
};

struct SettingRow {
  const char* name;
  const char* value;
  const char* help;
  std::string Settings::*text;
  double Settings::*number;
  bool whole = true;
};
const SettingRow kSettings[] = {
    {"--cost", "FILE", "cost model: written by --fit and --fit-recording, read otherwise", &Settings::cost,
     nullptr},
    {"--fit", "MODEL", "measure this machine's steps with the model, without HTTP; write the cost model",
     &Settings::fit, nullptr},
    {"--fit-recording", "FILE", "fit to what `serval serve --record FILE` recorded; write the cost model",
     &Settings::fit_recording, nullptr},
    {"--fit-report", "FILE", "... and what `serval bench --json FILE` saw of the same run",
     &Settings::fit_report, nullptr},
    {"--validate", "MODEL", "also run the workload on the real engine, without HTTP, and compare",
     &Settings::validate, nullptr},
    {"--against", "FILE", "compare with a report that `serval bench --json` wrote of the same workload",
     &Settings::against, nullptr},
    {"--replicas", "N", "servers (1)", nullptr, &Settings::replicas},
    {"--prefill-replicas", "N", "servers before them that compute prompts; the others then only decode",
     nullptr, &Settings::prefill_replicas},
    {"--kv-bytes-per-token", "B", "what goes between the two for each prompt token (0)", nullptr,
     &Settings::kv_bytes_per_token},
    {"--link-gbytes-per-s", "G", "how fast, for each prefill server; 0: in no time (0)", nullptr,
     &Settings::link_gbytes_per_s, false},
    {"--link-latency-ms", "MS", "of every transfer (0)", nullptr, &Settings::link_latency_ms, false},
    {"--find-replicas", "MOST",
     "the fewest servers at which 99 % of the requests meet the SLOs; of both kinds with --prefill-replicas",
     nullptr, &Settings::find_replicas},
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
      const double number = std::strtod(value.c_str(), &end);
      const bool is_good = row->whole ? number >= 1 && number == std::floor(number) : number >= 0;
      if (value.empty() || *end != '\0' || !is_good || number > 1e8)
        throw std::runtime_error(arguments[i] + " is '" + value + "'; it must be a " +
                                 (row->whole ? "whole number from 1" : "number from 0"));
      settings.*row->number = number;
    }
    arguments.erase(arguments.begin() + i, arguments.begin() + i + 2);
  }
  return settings;
}

SimulationOptions simulation(const Settings& settings) {
  if (settings.max_num_batched_tokens < settings.max_num_seqs)
    throw std::runtime_error("--max-num-batched-tokens must be at least --max-num-seqs");
  const auto whole = [](double number) { return static_cast<int>(number); };
  SimulationOptions options;
  options.scheduler.max_num_seqs = whole(settings.max_num_seqs);
  options.scheduler.max_num_batched_tokens = options.scheduler.max_prefill_chunk =
      whole(settings.max_num_batched_tokens);
  options.scheduler.max_model_len = whole(settings.max_model_len);
  options.scheduler.max_waiting = 10'000'000;
  options.geometry.block_size = whole(settings.block_size);
  options.geometry.groups[0].num_blocks = whole(settings.kv_blocks);
  options.replicas = whole(settings.replicas);
  options.prefill_replicas = whole(settings.prefill_replicas);
  options.link = {settings.kv_bytes_per_token, settings.link_gbytes_per_s * 1e9,
                  settings.link_latency_ms / 1e3};
  if (settings.routing == "round-robin")
    options.routing = Routing::kRoundRobin;
  else if (settings.routing == "prefix")
    options.routing = Routing::kPrefix;
  else if (settings.routing != "least-loaded")
    throw std::runtime_error("--routing is '" + settings.routing +
                             "'; it must be round-robin, least-loaded or prefix");
  return options;
}

std::vector<StepSample> measure_steps(const Settings& settings) {
  EngineRun run(settings.fit, simulation(settings).scheduler, static_cast<int>(settings.block_size));
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
  return run.samples();
}

int fit(const Settings& settings) {
  if (settings.cost.empty()) throw std::runtime_error("fitting needs --cost FILE to write to");
  if (settings.fit_recording.empty() != settings.fit_report.empty())
    throw std::runtime_error("--fit-recording and --fit-report go together");
  const CostModel cost = settings.fit.empty() ? fit_recording(settings.fit_recording, settings.fit_report)
                                              : fit_steps(measure_steps(settings));
  for (const auto& [name, step] : {std::pair{"decode", &cost.decode}, {"prompt", &cost.prompt}}) {
    std::printf("%s steps: %.4f ms + %.4f per row + %.4f per sequence + %.4f per 1000 positions attended\n",
                name, step->step, step->row, step->seq, step->context);
  }
  for (const auto& [name, spread] : {std::pair{"to the engine, idle", &cost.arrival_idle},
                                     {"to the engine, busy", &cost.arrival_busy},
                                     {"first token back", &cost.first_token},
                                     {"last token back", &cost.last_token}}) {
    if (spread->shares.empty()) continue;
    const Percentiles p = percentiles(spread->shares);
    std::printf("%-20s: %.3f ms mean, %.3f p50, %.3f p90\n", name, p.mean, p.p50, p.p90);
  }
  write_file(settings.cost, cost_json(cost));
  return 0;
}

// Figures by the names they have in a report.
using Figures = std::vector<std::pair<std::string, double>>;

Figures figures_of(const Summary& summary) {
  return {{"ttft_ms.p50", summary.ttft_ms.p50}, {"ttft_ms.p90", summary.ttft_ms.p90},
          {"tpot_ms.p50", summary.tpot_ms.p50}, {"tpot_ms.p90", summary.tpot_ms.p90},
          {"e2e_ms.p50", summary.e2e_ms.p50},   {"output_tokens_per_s", summary.output_tokens_per_s}};
}

std::string fleet_name(const FleetSize& size) {
  const auto count = [](int n, const std::string& what) {
    return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
  };
  if (size.prefill_replicas == 0) return count(size.replicas, "replica");
  return count(size.prefill_replicas, "prefill replica") + " and " + count(size.replicas, "decode replica");
}

void compare(const Figures& predicted, const Figures& measured) {
  std::printf("\n%-22s%12s%12s%12s\n", "", "predicted", "measured", "pred/meas");
  for (const auto& [name, a] : predicted) {
    const auto b =
        std::find_if(measured.begin(), measured.end(), [&](const auto& m) { return m.first == name; });
    if (b != measured.end() && b->second > 0)
      std::printf("%-22s%12.3f%12.3f%12.3f\n", name.c_str(), a, b->second, a / b->second);
  }
}

}  // namespace

std::string simulate_help() {
  std::string out =
      "usage: serval simulate --fit MODEL --cost FILE\n"
      "       serval simulate --fit-recording FILE --fit-report FILE --cost FILE\n"
      "       serval simulate --cost FILE [options]      options of serval bench say what to send\n\n";
  for (const SettingRow& row : kSettings) {
    std::string left = std::string("  ") + row.name + " " + row.value;
    left.resize(std::max<size_t>(left.size() + 1, 32), ' ');
    out += left + row.help + "\n";
  }
  return out + "\n" + load_options_help();
}

int simulate_main(std::vector<std::string> arguments) {
  const Settings settings = take_settings(arguments);
  if (!settings.fit.empty() || !settings.fit_recording.empty()) return fit(settings);
  if (settings.cost.empty())
    throw std::runtime_error(
        "serval simulate needs --cost FILE (made by --fit); serval simulate --help lists its options");
  LoadOptions load = parse_load_options(arguments);
  load.workload.send_token_ids = true;
  const std::vector<PlannedRequest> workload = make_workload(load);
  SimulationOptions options = simulation(settings);
  options.cost = read_cost(settings.cost);
  options.concurrency = load.concurrency;
  options.seed = load.workload.seed;

  std::unique_ptr<EngineRun> real;
  if (!settings.validate.empty()) {
    real = std::make_unique<EngineRun>(settings.validate, options.scheduler, options.geometry.block_size);
    options.geometry = real->geometry();
    options.scheduler.max_model_len = real->scheduler().max_model_len;
  }
  const Clock::time_point begin = Clock::now();
  if (settings.find_replicas > 0) {
    const int most = static_cast<int>(settings.find_replicas);
    const FleetSize needed = find_fleet(options, workload, load.slo, most);
    if (needed.replicas == 0) {
      std::printf("%d replicas do not meet the SLOs\n", most);
      return 1;
    }
    std::printf("%s meet the SLOs\n", fleet_name(needed).c_str());
    options.prefill_replicas = needed.prefill_replicas;
    options.replicas = needed.replicas;
  }
  Report report;
  report.label = "simulation";
  report.url = "simulated: " + fleet_name({options.prefill_replicas, options.replicas});
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
    compare(figures_of(report.summary), figures_of(summarise(real->run(workload), load.slo)));
  }
  if (!settings.against.empty()) compare(figures_of(report.summary), read_figures(settings.against));
  return 0;
}

}  // namespace serval
