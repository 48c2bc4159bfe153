#include "loadtest/bench_main.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>
#include <stdexcept>

#include "loadtest/driver.h"
#include "loadtest/report.h"
#include "loadtest/workload.h"

namespace serval {
namespace {

using namespace load;

struct Options {
  std::vector<std::string> urls;
  std::string trace, json, html, compare_a, compare_b, record, model, api_key, arrival = "poisson";
  int warmup = 0;
  int rounds = 1;
  bool search = false;
  bool chat = false, respect_eos = false, keep_text = false;
  double max_duration_s = 3600, timeout_s = 600, temperature = 0, scrape_every_s = 0.25;
  int concurrency = 0;
  Slo slo;
  WorkloadOptions workload;
};

// One row an option: its name, what it takes, what it says, and how it is taken.
struct OptionRow {
  const char* name;
  const char* value;  // empty: a flag
  const char* help;
  std::function<void(Options&, const std::string&)> set;
};

double to_number(const std::string& name, const std::string& text, double low, double high) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value >= low && value <= high)) {
    throw std::runtime_error(name + " is '" + text + "'; it must be a number from " + std::to_string(low) + " to " + std::to_string(high));
  }
  return value;
}

const std::vector<OptionRow>& rows() {
  const auto number = [](auto member, double low, double high) {
    return [=](Options& o, const std::string& text) {
      o.*member = static_cast<std::decay_t<decltype(o.*member)>>(to_number("the option", text, low, high));
    };
  };
  const auto workload = [](auto member, double low, double high) {
    return [=](Options& o, const std::string& text) {
      o.workload.*member = static_cast<std::decay_t<decltype(o.workload.*member)>>(to_number("the option", text, low, high));
    };
  };
  const auto text = [](std::string Options::*member) { return [=](Options& o, const std::string& value) { o.*member = value; }; };
  static const std::vector<OptionRow> table = {
      {"--url", "URL", "endpoint, e.g. http://127.0.0.1:8000/v1; several are run in turn", [](Options& o, const std::string& v) { o.urls.push_back(v); }},
      {"--requests", "N", "requests to send (100)", workload(&WorkloadOptions::num_requests, 1, 10'000'000)},
      {"--rate", "R", "open loop: requests per second", workload(&WorkloadOptions::rate, 0, 1e6)},
      {"--ramp-to", "R", "the rate changes linearly to this one", workload(&WorkloadOptions::ramp_to, 0, 1e6)},
      {"--arrival", "KIND", "constant, poisson or gamma", text(&Options::arrival)},
      {"--cv", "C", "coefficient of variation of gamma gaps (1)", workload(&WorkloadOptions::cv, 0.01, 100)},
      {"--concurrency", "C", "closed loop: requests kept open", number(&Options::concurrency, 1, 100'000)},
      {"--search", "", "find the highest rate at which 99 % of requests meet the SLOs", [](Options& o, const std::string&) { o.search = true; }},
      {"--input-tokens", "I", "length of synthetic prompts (128)", workload(&WorkloadOptions::input_tokens, 1, 10'000'000)},
      {"--output-tokens", "O", "output budget (64)", workload(&WorkloadOptions::output_tokens, 1, 10'000'000)},
      {"--length-jitter", "J", "lengths vary by this share both ways", workload(&WorkloadOptions::length_jitter, 0, 0.99)},
      {"--shared-prefix-tokens", "P", "tokens all synthetic prompts begin with", workload(&WorkloadOptions::shared_prefix_tokens, 0, 10'000'000)},
      {"--trace", "FILE", "Azure csv, Mooncake jsonl, ServeGen csv, ShareGPT json, jsonl or text of prompts, a recorded run", text(&Options::trace)},
      {"--scale-lengths", "F", "a trace's lengths times this", workload(&WorkloadOptions::scale_lengths, 1e-6, 1e6)},
      {"--scale-rate", "F", "a trace's clock runs this much faster", workload(&WorkloadOptions::scale_rate, 1e-6, 1e6)},
      {"--block-tokens", "B", "tokens of a Mooncake hash id, before scaling (512)", workload(&WorkloadOptions::block_tokens, 1, 1'000'000)},
      {"--think-time", "S", "seconds between turns of a conversation", workload(&WorkloadOptions::think_s, 0, 86'400)},
      {"--token-ids", "", "synthetic prompts as token ids", [](Options& o, const std::string&) { o.workload.send_token_ids = true; }},
      {"--first-id", "ID", "smallest token id used (100)", workload(&WorkloadOptions::first_id, 0, 1'000'000'000)},
      {"--num-ids", "N", "how many ids from there (400)", workload(&WorkloadOptions::num_ids, 1, 1'000'000'000)},
      {"--seed", "S", "of everything random (0)", workload(&WorkloadOptions::seed, 0, 9e15)},
      {"--warmup", "N", "requests sent first and not counted", number(&Options::warmup, 0, 1'000'000)},
      {"--rounds", "N", "with several URLs: how often they take turns", number(&Options::rounds, 1, 1000)},
      {"--slo-ttft", "MS", "a good request's first token comes within this", [](Options& o, const std::string& v) { o.slo.ttft_ms = to_number("--slo-ttft", v, 0, 1e9); }},
      {"--slo-tpot", "MS", "... and its tokens at least this fast", [](Options& o, const std::string& v) { o.slo.tpot_ms = to_number("--slo-tpot", v, 0, 1e9); }},
      {"--chat", "", "use /chat/completions", [](Options& o, const std::string&) { o.chat = true; }},
      {"--respect-eos", "", "let the model end before the budget", [](Options& o, const std::string&) { o.respect_eos = true; }},
      {"--temperature", "T", "of sampling (0)", number(&Options::temperature, 0, 2)},
      {"--model", "NAME", "model to ask for; the first listed otherwise", text(&Options::model)},
      {"--api-key", "KEY", "sent as a bearer token", text(&Options::api_key)},
      {"--timeout", "S", "of one request (600)", number(&Options::timeout_s, 0.001, 1e6)},
      {"--max-duration", "S", "of the whole run (3600)", number(&Options::max_duration_s, 0.001, 1e6)},
      {"--scrape-every", "S", "seconds between looks at the server's /metrics; 0: none (0.25)", number(&Options::scrape_every_s, 0, 3600)},
      {"--json", "FILE", "write the figures", text(&Options::json)},
      {"--html", "FILE", "write the report", text(&Options::html)},
      {"--record", "FILE", "write what was sent, to be replayed with --trace", text(&Options::record)},
  };
  return table;
}

Options parse(const std::vector<std::string>& arguments) {
  Options options;
  bool ids_asked = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    std::string name = arguments[i], value;
    const size_t equals = name.find('=');
    const bool has_value = equals != std::string::npos;
    if (has_value) {
      value = name.substr(equals + 1);
      name.resize(equals);
    }
    if (name == "--compare") {
      if (i + 2 >= arguments.size()) throw std::runtime_error("--compare takes two report files");
      options.compare_a = arguments[++i];
      options.compare_b = arguments[++i];
      continue;
    }
    const auto row = std::find_if(rows().begin(), rows().end(), [&](const OptionRow& r) { return name == r.name; });
    if (row == rows().end()) throw std::runtime_error("serval bench does not know " + name + "; serval bench --help lists its options");
    if (*row->value != '\0' && !has_value) {
      if (i + 1 == arguments.size()) throw std::runtime_error(name + " needs a value");
      value = arguments[++i];
    }
    try {
      row->set(options, value);
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(name + ": " + error.what());
    }
    ids_asked = ids_asked || name == "--token-ids";
  }
  if (!options.compare_a.empty()) return options;
  if (options.urls.empty()) throw std::runtime_error("serval bench needs --url; serval bench --help lists its options");
  if (options.arrival == "constant") options.workload.arrival = Arrival::kConstant;
  else if (options.arrival == "gamma") options.workload.arrival = Arrival::kGamma;
  else if (options.arrival != "poisson") throw std::runtime_error("--arrival is '" + options.arrival + "'; it must be constant, poisson or gamma");
  if (options.concurrency > 0 && options.workload.rate > 0) throw std::runtime_error("--rate and --concurrency exclude each other: a loop is open or closed");
  if (options.concurrency == 0 && options.workload.rate == 0 && options.trace.empty()) options.concurrency = 8;
  if (options.search && options.slo.ttft_ms <= 0 && options.slo.tpot_ms <= 0) throw std::runtime_error("--search needs --slo-ttft or --slo-tpot");
  if (options.search && options.workload.rate <= 0) throw std::runtime_error("--search needs --rate to start from");
  if (options.chat && ids_asked) throw std::runtime_error("--chat sends text; --token-ids does not go with it");
  return options;
}

std::vector<PlannedRequest> make_workload(const Options& options) {
  return options.trace.empty() ? synthetic_workload(options.workload) : trace_workload(options.trace, options.workload);
}

Report run_once(const Options& options, const std::string& url, const std::vector<PlannedRequest>& workload, const std::string& label) {
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
  if (options.warmup > 0) {
    std::vector<PlannedRequest> first(workload.begin(), workload.begin() + std::min<size_t>(options.warmup, workload.size()));
    for (PlannedRequest& request : first) request.after = -1;
    DriverOptions warm = driver;
    warm.concurrency = std::max(1, options.concurrency);
    drive(warm, first);
  }
  driver.progress = [](size_t sent, size_t done, size_t failed, size_t total) {
    std::fprintf(stderr, "\r%zu of %zu sent, %zu done, %zu failed  ", sent, total, done, failed);
    if (done == total) std::fputc('\n', stderr);
  };
  DriverResult result = drive(driver, workload);
  Report report;
  report.label = label;
  report.url = url;
  report.model = result.model;
  report.slo = options.slo;
  report.summary = summarise(result.outcomes, options.slo);
  report.outcomes = std::move(result.outcomes);
  report.samples = std::move(result.samples);
  return report;
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
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

// Doubles the rate until the SLOs break, then halves the gap: the highest rate at which 99 % of the requests are good.
int search(Options options, const std::string& label) {
  double good = 0, bad = 0, rate = options.workload.rate;
  for (int step = 0; step < 12 && (bad == 0 || bad / std::max(good, 1e-9) > 1.1); ++step) {
    options.workload.rate = rate;
    const Report report = run_once(options, options.urls[0], make_workload(options), label);
    const bool met = report.summary.good_share >= 0.99;
    std::printf("%8.2f requests/s: %.1f %% good, ttft p99 %.1f ms, tpot p99 %.2f ms\n", rate, report.summary.good_share * 100,
                report.summary.ttft_ms.p99, report.summary.tpot_ms.p99);
    std::fflush(stdout);
    (met ? good : bad) = rate;
    rate = bad == 0 ? rate * 2 : good == 0 ? rate / 2 : (good + bad) / 2;
  }
  std::printf("highest rate that met the SLOs: %.2f requests/s\n", good);
  return good > 0 ? 0 : 1;
}

}  // namespace

std::string bench_load_help() {
  std::string out = "usage: serval bench --url URL [options]      load against an OpenAI-compatible endpoint\n       serval bench --compare A.json B.json\n\n";
  for (const OptionRow& row : rows()) {
    std::string left = std::string("  ") + row.name + (*row.value ? std::string(" ") + row.value : "");
    left.resize(std::max<size_t>(left.size() + 1, 32), ' ');
    out += left + row.help + "\n";
  }
  return out;
}

int bench_load(const std::vector<std::string>& arguments) {
  const Options options = parse(arguments);
  if (!options.compare_a.empty()) {
    std::cout << compare_text(options.compare_a, options.compare_b);
    return 0;
  }
  std::string label = "serval bench";
  for (const std::string& argument : arguments) label += " " + argument;
  if (!options.api_key.empty()) label.replace(label.find(options.api_key), options.api_key.size(), "KEY");
  if (options.search) return search(options, label);
  const std::vector<PlannedRequest> workload = make_workload(options);

  if (options.urls.size() > 1) {
    std::vector<Report> reports;
    for (int round = 0; round < options.rounds; ++round) {
      for (const std::string& url : options.urls) reports.push_back(run_once(options, url, workload, url));
    }
    std::cout << table_text(reports);
    return 0;
  }
  const Report report = run_once(options, options.urls[0], workload, label);
  std::cout << report_text(report);
  if (!options.json.empty()) write_file(options.json, report_json(report));
  if (!options.html.empty()) write_file(options.html, report_html(report));
  if (!options.record.empty()) record(options.record, workload, report);
  return report.summary.num_ok == report.summary.num_requests ? 0 : 1;
}

}  // namespace serval
