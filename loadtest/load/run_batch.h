// `serval run-batch`: the requests of a file in OpenAI's batch format, sent to a server, and their answers in a file.
#pragma once

#include <string>
#include <vector>

namespace serval {

std::string run_batch_help();
// The exit code is 1 when a request was not answered with 200.
int run_batch(const std::vector<std::string>& arguments);

}  // namespace serval
