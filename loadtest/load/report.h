// A run in words, in JSON, and as one self-contained page with plots.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "loadtest/load/driver.h"
#include "loadtest/load/measure.h"

namespace serval::load {

struct Report {
  std::string label;  // what was run, as a command line
  std::string url;
  std::string model;
  int64_t started_ns = 0;  // on this machine's monotonic clock, to lay the run beside a server's recording
  Slo slo;
  Summary summary;
  std::vector<Outcome> outcomes;
  std::vector<ServerSample> samples;
  bool has_every_token = true;  // false: a simulation, which keeps the first and the last one's time
};

std::string report_text(const Report& report);
std::string report_json(const Report& report);
std::string report_html(const Report& report);

// The figures of a JSON report written earlier, by their dotted names ("ttft_ms.p50"). Throws
// std::runtime_error with a sentence.
std::vector<std::pair<std::string, double>> read_figures(const std::string& path);
// Two of them side by side with the ratio B / A.
std::string compare_text(const std::string& a_path, const std::string& b_path);
// Several runs of one workload as a table, a row each; then the medians of the runs with the same label.
std::string table_text(const std::vector<Report>& reports);

}  // namespace serval::load
