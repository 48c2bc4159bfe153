#include "loadtest/load_options.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <stdexcept>

namespace serval::load {
namespace {

// One row an option: its name, what it takes, what it says, and how it is taken.
struct OptionRow {
  const char* name;
  const char* value;  // empty: a flag
  const char* help;
  std::function<void(LoadOptions&, const std::string&)> set;
};

double to_number(const std::string& name, const std::string& text, double low, double high) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value >= low && value <= high)) {
    throw std::runtime_error(name + " is '" + text + "'; it must be a number from " + std::to_string(low) +
                             " to " + std::to_string(high));
  }
  return value;
}

const std::vector<OptionRow>& rows() {
  const auto number = [](auto member, double low, double high) {
    return [=](LoadOptions& o, const std::string& text) {
      o.*member = static_cast<std::decay_t<decltype(o.*member)>>(to_number("the option", text, low, high));
    };
  };
  const auto workload = [](auto member, double low, double high) {
    return [=](LoadOptions& o, const std::string& text) {
      o.workload.*member =
          static_cast<std::decay_t<decltype(o.workload.*member)>>(to_number("the option", text, low, high));
    };
  };
  const auto text = [](std::string LoadOptions::*member) {
    return [=](LoadOptions& o, const std::string& value) { o.*member = value; };
  };
  static const std::vector<OptionRow> table = {
      {"--url", "URL", "endpoint: http://127.0.0.1:8000/v1, or grpc://127.0.0.1:8001 of a Serval",
       [](LoadOptions& o, const std::string& v) { o.urls.push_back(v); }},
      {"--requests", "N", "requests to send (100)", workload(&WorkloadOptions::num_requests, 1, 10'000'000)},
      {"--rate", "R", "open loop: requests per second", workload(&WorkloadOptions::rate, 0, 1e6)},
      {"--ramp-to", "R", "the rate changes linearly to this one",
       workload(&WorkloadOptions::ramp_to, 0, 1e6)},
      {"--arrival", "KIND", "constant, poisson or gamma", text(&LoadOptions::arrival)},
      {"--cv", "C", "coefficient of variation of gamma gaps (1)", workload(&WorkloadOptions::cv, 0.01, 100)},
      {"--concurrency", "C", "closed loop: requests kept open",
       number(&LoadOptions::concurrency, 1, 100'000)},
      {"--search", "", "find the highest rate at which 99 % of requests meet the SLOs",
       [](LoadOptions& o, const std::string&) { o.search = true; }},
      {"--input-tokens", "I", "length of synthetic prompts (128)",
       workload(&WorkloadOptions::input_tokens, 1, 10'000'000)},
      {"--output-tokens", "O", "output budget (64)",
       workload(&WorkloadOptions::output_tokens, 1, 10'000'000)},
      {"--length-jitter", "J", "lengths vary by this share both ways",
       workload(&WorkloadOptions::length_jitter, 0, 0.99)},
      {"--shared-prefix-tokens", "P", "tokens all synthetic prompts begin with",
       workload(&WorkloadOptions::shared_prefix_tokens, 0, 10'000'000)},
      {"--trace", "FILE",
       "Azure csv, Mooncake jsonl, ServeGen csv or folder, ShareGPT json, jsonl or text of prompts, a "
       "recorded run; "
       ".xz and .gz too",
       text(&LoadOptions::trace)},
      {"--scale-lengths", "F", "a trace's lengths times this",
       workload(&WorkloadOptions::scale_lengths, 1e-6, 1e6)},
      {"--scale-rate", "F", "a trace's clock runs this much faster",
       workload(&WorkloadOptions::scale_rate, 1e-6, 1e6)},
      {"--block-tokens", "B", "tokens of a Mooncake hash id, before scaling (512)",
       workload(&WorkloadOptions::block_tokens, 1, 1'000'000)},
      {"--think-time", "S", "seconds between turns of a conversation",
       workload(&WorkloadOptions::think_s, 0, 86'400)},
      {"--token-ids", "", "synthetic prompts as token ids",
       [](LoadOptions& o, const std::string&) { o.workload.send_token_ids = true; }},
      {"--first-id", "ID", "smallest token id used (100)",
       workload(&WorkloadOptions::first_id, 0, 1'000'000'000)},
      {"--num-ids", "N", "how many ids from there (400)",
       workload(&WorkloadOptions::num_ids, 1, 1'000'000'000)},
      {"--seed", "S", "of everything random (0)", workload(&WorkloadOptions::seed, 0, 9e15)},
      {"--warmup", "N", "requests sent first and not counted", number(&LoadOptions::warmup, 0, 1'000'000)},
      {"--rounds", "N", "of bench peers: how often the endpoints take turns (3)",
       number(&LoadOptions::rounds, 1, 1000)},
      {"--slo-ttft", "MS", "a good request's first token comes within this",
       [](LoadOptions& o, const std::string& v) { o.slo.ttft_ms = to_number("--slo-ttft", v, 0, 1e9); }},
      {"--slo-tpot", "MS", "... and its tokens at least this fast",
       [](LoadOptions& o, const std::string& v) { o.slo.tpot_ms = to_number("--slo-tpot", v, 0, 1e9); }},
      {"--chat", "", "use /chat/completions", [](LoadOptions& o, const std::string&) { o.chat = true; }},
      {"--respect-eos", "", "let the model end before the budget",
       [](LoadOptions& o, const std::string&) { o.respect_eos = true; }},
      {"--temperature", "T", "of sampling (0)", number(&LoadOptions::temperature, 0, 2)},
      {"--model", "NAME", "model to ask for; the first listed otherwise", text(&LoadOptions::model)},
      {"--api-key", "KEY", "sent as a bearer token", text(&LoadOptions::api_key)},
      {"--timeout", "S", "of one request (600)", number(&LoadOptions::timeout_s, 0.001, 1e6)},
      {"--max-duration", "S", "of the whole run (3600)", number(&LoadOptions::max_duration_s, 0.001, 1e6)},
      {"--scrape-every", "S", "seconds between looks at the server's /metrics; 0: none (0.25)",
       number(&LoadOptions::scrape_every_s, 0, 3600)},
      {"--json", "FILE", "write the figures", text(&LoadOptions::json)},
      {"--keep-text", "", "... with every answer's text in them",
       [](LoadOptions& o, const std::string&) { o.keep_text = true; }},
      {"--html", "FILE", "write the report", text(&LoadOptions::html)},
      {"--record", "FILE", "write what was sent, to be replayed with --trace", text(&LoadOptions::record)},
  };
  return table;
}

}  // namespace

LoadOptions parse_load_options(const std::vector<std::string>& arguments) {
  LoadOptions options;
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
    const auto row =
        std::find_if(rows().begin(), rows().end(), [&](const OptionRow& r) { return name == r.name; });
    if (row == rows().end()) throw std::runtime_error("unknown option " + name + "; --help lists them");
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
  if (options.arrival == "constant")
    options.workload.arrival = Arrival::kConstant;
  else if (options.arrival == "gamma")
    options.workload.arrival = Arrival::kGamma;
  else if (options.arrival != "poisson")
    throw std::runtime_error("--arrival is '" + options.arrival + "'; it must be constant, poisson or gamma");
  if (options.concurrency > 0 && options.workload.rate > 0)
    throw std::runtime_error("--rate and --concurrency exclude each other: a loop is open or closed");
  if (options.search && options.slo.ttft_ms <= 0 && options.slo.tpot_ms <= 0)
    throw std::runtime_error("--search needs --slo-ttft or --slo-tpot");
  if (options.search && options.workload.rate <= 0)
    throw std::runtime_error("--search needs --rate to start from");
  if (options.chat && ids_asked)
    throw std::runtime_error("--chat sends text; --token-ids does not go with it");
  return options;
}

std::vector<PlannedRequest> make_workload(const LoadOptions& options) {
  return options.trace.empty() ? synthetic_workload(options.workload)
                               : trace_workload(options.trace, options.workload);
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

std::string load_options_help() {
  std::string out;
  for (const OptionRow& row : rows()) {
    std::string left = std::string("  ") + row.name + (*row.value ? std::string(" ") + row.value : "");
    left.resize(std::max<size_t>(left.size() + 1, 32), ' ');
    out += left + row.help + "\n";
  }
  return out;
}

}  // namespace serval::load
