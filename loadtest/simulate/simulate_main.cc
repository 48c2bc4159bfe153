#include "loadtest/simulate/simulate_main.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <memory>
#include <stdexcept>

#include "kernels/base/usage.h"
#include "loadtest/load/load_options.h"
#include "loadtest/load/report.h"
#include "loadtest/simulate/engine_run.h"
#include "loadtest/simulate/fit_recording.h"
#include "loadtest/simulate/simulate.h"

namespace serval {
namespace {

using namespace load;
using Clock = std::chrono::steady_clock;

struct Settings {
  std::string cost, fit, fit_recording, fit_report, validate, against;
  Routing routing = Routing::kLeastLoaded;
  int replicas = 1, prefill_replicas = 0, find_replicas = 0;
  int max_num_seqs = 64, max_num_batched_tokens = 512, max_model_len = 2048, kv_blocks = 8192,
      block_size = 16, num_draft_tokens = 0;
  double draft_acceptance = 0;
  KvLink link;
};

std::vector<OptionRow> setting_rows(Settings& s) {
  constexpr double kMost = 1e8;
  constexpr unsigned kAll = kSimulate | kFit | kFitRecording, kEngine = kSimulate | kFit;
  return {
      {"--cost", "FILE", "cost model: written by --fit and --fit-recording, read otherwise", kAll,
       set_text(s.cost)},
      {"--fit", "MODEL", "measure this machine's steps with the model, without HTTP; write the cost model",
       kFit, set_text(s.fit)},
      {"--fit-recording", "FILE", "fit to what `serval serve --record FILE` recorded; write the cost model",
       kFitRecording, set_text(s.fit_recording)},
      {"--fit-report", "FILE", "... and what `serval bench --json FILE` saw of the same run", kFitRecording,
       set_text(s.fit_report)},
      {"--validate", "MODEL", "also run the workload on the real engine, without HTTP, and compare",
       kSimulate, set_text(s.validate)},
      {"--against", "FILE", "compare with a report that `serval bench --json` wrote of the same workload",
       kSimulate, set_text(s.against)},
      {"--replicas", "N", "servers (1)", kSimulate, set_number(s.replicas, 1, kMost)},
      {"--prefill-replicas", "N", "servers before them that compute prompts; the others then only decode",
       kSimulate, set_number(s.prefill_replicas, 1, kMost)},
      {"--kv-bytes-per-token", "B", "what goes between the two for each prompt token (0)", kSimulate,
       set_number(s.link.bytes_per_token, 0, kMost)},
      {"--link-gbytes-per-s", "G", "how fast, for each prefill server; 0: in no time (0)", kSimulate,
       [&s](const std::string& text) { s.link.bytes_per_s = to_number(text, 0, kMost, false) * 1e9; }},
      {"--link-latency-ms", "MS", "of every transfer (0)", kSimulate,
       [&s](const std::string& text) { s.link.latency_s = to_number(text, 0, kMost, false) / 1e3; }},
      {"--find-replicas", "MOST",
       "the fewest servers at which 99 % of the requests meet the SLOs; of both kinds with "
       "--prefill-replicas",
       kSimulate, set_number(s.find_replicas, 1, kMost)},
      {"--routing", "KIND", "round-robin, least-loaded or prefix (least-loaded)", kSimulate,
       set_choice<Routing>(s.routing, {{"round-robin", Routing::kRoundRobin},
                                       {"least-loaded", Routing::kLeastLoaded},
                                       {"prefix", Routing::kPrefix}})},
      {"--max-num-seqs", "N", "as serval serve (64)", kEngine, set_number(s.max_num_seqs, 1, kMost)},
      {"--max-num-batched-tokens", "N", "as serval serve (512)", kEngine,
       set_number(s.max_num_batched_tokens, 1, kMost)},
      {"--max-model-len", "N", "as serval serve (2048)", kEngine, set_number(s.max_model_len, 1, kMost)},
      {"--kv-blocks", "N", "blocks of a server's KV cache (8192)", kSimulate,
       set_number(s.kv_blocks, 1, kMost)},
      {"--block-size", "N", "positions of a block (16)", kEngine, set_number(s.block_size, 1, kMost)},
      {"--num-draft-tokens", "N", "guesses of a sequence in a step; 0: no speculation (0)", kSimulate,
       set_number(s.num_draft_tokens, 0, kMaxDrafts)},
      {"--draft-acceptance", "P", "how likely a guess comes true when the one before it did (0)", kSimulate,
       set_number(s.draft_acceptance, 0, 1)},
  };
}

SimulationOptions simulation(const Settings& settings) {
  SimulationOptions options;
  options.scheduler.max_num_seqs = settings.max_num_seqs;
  options.scheduler.max_num_batched_tokens = options.scheduler.max_prefill_chunk =
      settings.max_num_batched_tokens;
  options.scheduler.max_model_len = settings.max_model_len;
  options.scheduler.max_waiting = 10'000'000;
  options.scheduler.num_draft_tokens = settings.num_draft_tokens;
  options.draft_acceptance = settings.draft_acceptance;
  check_scheduler_config(options.scheduler);
  options.geometry.block_size = settings.block_size;
  options.geometry.groups[0].num_blocks = settings.kv_blocks;
  options.replicas = settings.replicas;
  options.prefill_replicas = settings.prefill_replicas;
  options.link = settings.link;
  options.routing = settings.routing;
  return options;
}

std::vector<StepSample> measure_steps(const Settings& settings) {
  EngineRun run(settings.fit, simulation(settings).scheduler, settings.block_size);
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
  if (settings.cost.empty()) throw UsageError("fitting needs --cost FILE to write to");
  if (settings.fit_recording.empty() != settings.fit_report.empty())
    throw UsageError("--fit-recording and --fit-report go together");
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
  Settings settings;
  LoadOptions load;
  return options_help(setting_rows(settings), kSimulate | kFit | kFitRecording) + "\nWhat to send:\n" +
         options_help(load_rows(load), kSimulate);
}

int simulate_main(const std::vector<std::string>& arguments) {
  Settings settings;
  LoadOptions load;
  std::vector<OptionRow> rows = setting_rows(settings);
  for (OptionRow& row : load_rows(load)) rows.push_back(std::move(row));
  const Form form = has_option(arguments, "--fit")             ? kFit
                    : has_option(arguments, "--fit-recording") ? kFitRecording
                                                               : kSimulate;
  take_options(rows, command_of(form), arguments);
  if (form != kSimulate) return fit(settings);
  if (settings.cost.empty())
    throw UsageError(
        "serval simulate needs --cost FILE (made by --fit); serval simulate --help lists its options");
  if (settings.find_replicas > 0 && has_option(arguments, "--replicas"))
    throw UsageError("--find-replicas finds what --replicas would say; they exclude each other");
  if (!settings.validate.empty() && has_option(arguments, "--kv-blocks"))
    throw UsageError("--validate simulates its engine's own cache; --kv-blocks does not go with it");
  check_load_options(load);
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
    const int most = settings.find_replicas;
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
  report.has_every_token = false;
  report.slo = load.slo;
  report.outcomes = simulate(options, workload).outcomes;
  report.summary = summarise(report.outcomes, load.slo);
  std::cout << report_text(report);
  std::printf("simulated in %.2f s\n", std::chrono::duration<double>(Clock::now() - begin).count());
  if (!load.json.empty()) write_file(load.json, report_json(report));
  if (!load.html.empty()) write_file(load.html, report_html(report));
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
