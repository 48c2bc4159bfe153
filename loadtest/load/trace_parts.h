// What the readers of traces share: files, lines, and requests of a given length.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "loadtest/load/workload.h"

namespace serval::load {

// Unpacked (packed_file.h), at most 1 GiB. Throws std::runtime_error with a sentence.
std::string read_trace_file(const std::string& path);
std::vector<std::string> lines_of(const std::string& text);
[[noreturn]] void bad_line(const std::string& path, size_t line, const std::string& why);

// A trace's length at the scale asked for, at least 1.
int scaled(double tokens, const WorkloadOptions& options);
// A request of these lengths, its content drawn by `key`: equal keys give equal prompts.
PlannedRequest synthetic_entry(uint64_t key, double at_s, int input_tokens, int output_tokens,
                               const WorkloadOptions& options);

}  // namespace serval::load
