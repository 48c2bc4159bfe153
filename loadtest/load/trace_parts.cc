#include "loadtest/load/trace_parts.h"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <stdexcept>

#include "loadtest/load/packed_file.h"

namespace serval::load {

std::string read_trace_file(const std::string& path) {
  constexpr size_t kMaxTraceBytes = size_t{1} << 30;
  return read_packed_file(path, kMaxTraceBytes);
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::stringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    lines.push_back(line);
  }
  return lines;
}

void bad_line(const std::string& path, size_t line, const std::string& why) {
  throw std::runtime_error(path + " line " + std::to_string(line) + ": " + why);
}

int scaled(double tokens, const WorkloadOptions& options) {
  return std::max(1, static_cast<int>(std::lround(tokens * options.scale_lengths)));
}

PlannedRequest synthetic_entry(uint64_t key, double at_s, int input_tokens, int output_tokens,
                               const WorkloadOptions& options) {
  WorkloadOptions one = options;
  one.num_requests = 1;
  one.seed = options.seed * 1'000'003 + key;
  one.input_tokens = input_tokens;
  one.output_tokens = output_tokens;
  one.length_jitter = 0;
  one.rate = 0;
  PlannedRequest request = std::move(synthetic_workload(one)[0]);
  request.at_s = at_s;
  return request;
}

}  // namespace serval::load
