// The options that `serval bench` and `serval simulate` share: what to send, when, and what counts as good.
#pragma once

#include <string>
#include <vector>

#include "kernels/base/option_table.h"
#include "loadtest/load/measure.h"
#include "loadtest/load/workload.h"

namespace serval::load {

// What a command is asked for; the bits make sets.
enum Form : unsigned {
  kBench = 1,
  kSearch = 2,
  kPeers = 4,
  kSimulate = 8,
  kFit = 16,
  kFitRecording = 32,
};
CommandForm command_of(Form form);

struct LoadOptions {
  std::vector<std::string> urls;
  std::string trace, json, html, record, model, api_key;
  int warmup = 0;
  int rounds = 3;
  bool search = false;
  bool chat = false, respect_eos = false, keep_text = false;
  double max_duration_s = 3600, timeout_s = 600, temperature = 0, scrape_every_s = 0.25;
  int concurrency = 0;
  Slo slo;
  WorkloadOptions workload;
};

// The table, bound to `options`.
std::vector<OptionRow> load_rows(LoadOptions& options);
// Throws UsageError for options that exclude or need each other.
void check_load_options(const LoadOptions& options);

std::vector<PlannedRequest> make_workload(const LoadOptions& options);
void write_file(const std::string& path, const std::string& text);

}  // namespace serval::load
