// `serval bench --url ...`: load against any OpenAI-compatible endpoint. docs/loadtest.md.
#pragma once

#include <string>
#include <vector>

namespace serval {

// Each returns its exit code and throws UsageError for a wrong option, std::runtime_error for a value it
// cannot have, a file or an endpoint that is not as it must be.

// 0 when every request succeeded, of --search when some rate was held.
int bench_load(const std::vector<std::string>& arguments);
// Two JSON reports side by side.
int bench_compare(const std::vector<std::string>& arguments);
// The same load against several endpoints in turns, each round in the other order than the one before, and a
// table. 0 when every request to every one succeeded.
int bench_peers(const std::vector<std::string>& arguments);
// Their options, a line each.
std::string bench_load_help();
std::string bench_peers_help();

}  // namespace serval
