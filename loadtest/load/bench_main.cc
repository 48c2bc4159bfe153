#include "loadtest/load/bench_main.h"

#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <iostream>

#include "kernels/base/usage.h"
#include "loadtest/load/driver.h"
#include "loadtest/load/load_options.h"
#include "loadtest/load/report.h"
#include "loadtest/load/workload.h"

namespace serval {
namespace {

using namespace load;

Report run_once(const LoadOptions& options, const std::string& url,
                const std::vector<PlannedRequest>& workload, const std::string& label) {
  DriverOptions driver;
  driver.target = parse_url(url);
  driver.model = options.model;
  driver.api_key = options.api_key;
  driver.chat = options.chat;
  driver.concurrency = options.concurrency;
  driver.ignore_eos = !options.respect_eos;
  driver.temperature = options.temperature;
  driver.request_timeout_s = options.timeout_s;
  driver.max_duration_s = options.max_duration_s;
  driver.scrape_every_s = options.scrape_every_s;
  driver.keep_text = options.keep_text;
  if (options.warmup > 0) {
    std::vector<PlannedRequest> first(workload.begin(),
                                      workload.begin() + std::min<size_t>(options.warmup, workload.size()));
    for (PlannedRequest& request : first) request.after = -1;
    DriverOptions warm = driver;
    warm.concurrency = std::max(1, options.concurrency);
    drive(warm, first);
  }
  if (isatty(STDERR_FILENO))
    driver.progress = [](size_t sent, size_t done, size_t failed, size_t total) {
      std::fprintf(stderr, "\r%zu of %zu sent, %zu done, %zu failed  ", sent, total, done, failed);
      if (done == total) std::fputc('\n', stderr);
    };
  DriverResult result = drive(driver, workload);
  Report report;
  report.label = label;
  report.url = url;
  report.model = result.model;
  report.started_ns = result.started_ns;
  report.slo = options.slo;
  report.summary = summarise(result.outcomes, options.slo);
  report.outcomes = std::move(result.outcomes);
  report.samples = std::move(result.samples);
  return report;
}

void record(const std::string& path, const std::vector<PlannedRequest>& workload, const Report& report) {
  std::string lines;
  for (size_t i = 0; i < workload.size(); ++i) {
    boost::json::object entry;
    entry["at_s"] = report.outcomes[i].sent_s;
    entry["output_tokens"] = workload[i].output_tokens;
    if (workload[i].token_ids.empty()) {
      entry["prompt"] = workload[i].prompt;
    } else {
      entry["token_ids"] = boost::json::array(workload[i].token_ids.begin(), workload[i].token_ids.end());
    }
    lines += boost::json::serialize(entry) + "\n";
  }
  write_file(path, lines);
}

void write_reports(const LoadOptions& options, const std::vector<PlannedRequest>& workload,
                   const Report& report) {
  if (!options.json.empty()) write_file(options.json, report_json(report));
  if (!options.html.empty()) write_file(options.html, report_html(report));
  if (!options.record.empty()) record(options.record, workload, report);
}

// Doubles the rate until the server does not hold it, then halves the gap. The reports are those of the
// highest rate that it held.
int search(LoadOptions options, const std::string& label) {
  double good = 0, bad = 0, rate = options.workload.rate;
  std::vector<PlannedRequest> best_workload;
  Report best;
  for (int step = 0; step < 12 && (bad == 0 || bad / std::max(good, 1e-9) > 1.1); ++step) {
    options.workload.rate = rate;
    std::vector<PlannedRequest> workload = make_workload(options);
    Report report = run_once(options, options.urls[0], workload, label);
    const Summary& seen = report.summary;
    const bool held = holds_its_rate(seen);
    std::printf(
        "%8.2f requests/s: %.2f offered, %.2f served, %.1f %% good, ttft p99 %.1f ms, tpot p99 %.2f ms%s\n",
        rate, seen.offered_per_s, seen.served_per_s, seen.good_share * 100, seen.ttft_ms.p99,
        seen.tpot_ms.p99, held ? "" : ": not held");
    std::fflush(stdout);
    if (held) {
      best_workload = std::move(workload);
      best = std::move(report);
    }
    (held ? good : bad) = rate;
    rate = bad == 0 ? rate * 2 : good == 0 ? rate / 2 : (good + bad) / 2;
  }
  if (good == 0) {
    std::printf("no rate that was tried met the SLOs and was served; no report is written\n");
    return 1;
  }
  std::printf("highest rate that met the SLOs: %.2f requests/s (%.2f offered, %.2f served)\n", good,
              best.summary.offered_per_s, best.summary.served_per_s);
  write_reports(options, best_workload, best);
  return 0;
}

LoadOptions options_of(Form form, const std::vector<std::string>& arguments) {
  LoadOptions options;
  take_options(load_rows(options), command_of(form), arguments);
  check_load_options(options);
  // Without a pace of its own a load keeps eight requests open.
  if (options.concurrency == 0 && options.workload.rate == 0 && options.trace.empty())
    options.concurrency = 8;
  return options;
}

}  // namespace

std::string bench_load_help() {
  LoadOptions options;
  return options_help(load_rows(options), kBench | kSearch);
}

std::string bench_peers_help() {
  LoadOptions options;
  return options_help(load_rows(options), kPeers);
}

int bench_load(const std::vector<std::string>& arguments) {
  if (has_option(arguments, "--compare"))
    throw UsageError("--compare sends nothing and stands alone: serval bench --compare A.json B.json");
  const LoadOptions options = options_of(has_option(arguments, "--search") ? kSearch : kBench, arguments);
  if (options.urls.empty())
    throw UsageError("serval bench needs --url; serval bench --help lists its options");
  if (options.urls.size() > 1)
    throw UsageError("serval bench takes one --url; serval bench peers takes several, in turns");
  std::string label = "serval bench";
  for (const std::string& argument : arguments) label += " " + argument;
  if (!options.api_key.empty()) label.replace(label.find(options.api_key), options.api_key.size(), "KEY");
  if (options.search) return search(options, label);
  const std::vector<PlannedRequest> workload = make_workload(options);
  const Report report = run_once(options, options.urls[0], workload, label);
  std::cout << report_text(report);
  write_reports(options, workload, report);
  return report.summary.num_ok == report.summary.num_requests ? 0 : 1;
}

int bench_compare(const std::vector<std::string>& arguments) {
  for (const std::string& argument : arguments) {
    if (argument.starts_with("-"))
      throw UsageError(argument.substr(0, argument.find('=')) + " does not go with serval bench --compare");
  }
  if (arguments.size() != 2) throw UsageError("serval bench --compare takes two reports that --json wrote");
  std::cout << compare_text(arguments[0], arguments[1]);
  return 0;
}

int bench_peers(const std::vector<std::string>& arguments) {
  LoadOptions options = options_of(kPeers, arguments);
  if (options.urls.size() < 2) throw UsageError("serval bench peers needs --url at least twice");
  options.scrape_every_s = 0;  // the table does not show what it finds
  const std::vector<PlannedRequest> workload = make_workload(options);
  std::vector<Report> reports;
  bool all_ok = true;
  for (int round = 0; round < options.rounds; ++round) {
    for (const std::string& url : options.urls) {
      reports.push_back(run_once(options, url, workload, url));
      all_ok = all_ok && reports.back().summary.num_ok == workload.size();
    }
    std::reverse(options.urls.begin(), options.urls.end());
  }
  std::cout << table_text(reports);
  return all_ok ? 0 : 1;
}

}  // namespace serval
