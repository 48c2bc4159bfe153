// `serval simulate`: measures a machine's step cost, and asks what a fleet of such machines would do.
// docs/loadtest.md.
#pragma once

#include <string>
#include <vector>

namespace serval {

// Returns the exit code. Throws std::runtime_error with a sentence for a wrong option.
int simulate_main(std::vector<std::string> arguments);
std::string simulate_help();

}  // namespace serval
