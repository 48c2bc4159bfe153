// `serval simulate`: measures a machine's step cost, and asks what a fleet of such machines would do.
// docs/loadtest.md.
#pragma once

#include <string>
#include <vector>

namespace serval {

// Returns the exit code: 1 when no fleet it may use meets the SLOs. Throws UsageError for a wrong option,
// std::runtime_error for a value, a file or a model that is not as it must be.
int simulate_main(const std::vector<std::string>& arguments);
std::string simulate_help();  // its options, a line each

}  // namespace serval
