// `serval bench --url ...`: load against any OpenAI-compatible endpoint. docs/loadtest.md.
#pragma once

#include <string>
#include <vector>

namespace serval {

// Returns the exit code: 0 when every request succeeded. Throws std::runtime_error with a sentence for a
// wrong option.
int bench_load(const std::vector<std::string>& arguments);
// `serval bench peers`: the same load against several endpoints in turns, each round in the other order than
// the one before, and a table. The exit code is 0 when every request to every one succeeded.
int bench_peers(const std::vector<std::string>& arguments);
std::string bench_load_help();

}  // namespace serval
