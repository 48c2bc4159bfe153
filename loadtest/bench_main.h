// `serval bench --url ...`: load against any OpenAI-compatible endpoint. docs/loadtest.md.
#pragma once

#include <string>
#include <vector>

namespace serval {

// Returns the exit code: 0 when every request succeeded. Throws std::runtime_error with a sentence for a
// wrong option.
int bench_load(const std::vector<std::string>& arguments);
std::string bench_load_help();

}  // namespace serval
