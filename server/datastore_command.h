// `serval datastore`: texts to the tokens that a datastore drafter looks into (docs/speculation.md).
#pragma once

#include <string>
#include <vector>

namespace serval {

std::string datastore_help();
// Writes the file and prints how many tokens it holds.
int run_datastore(const std::vector<std::string>& arguments);

}  // namespace serval
