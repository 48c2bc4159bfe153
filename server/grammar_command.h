// `serval grammar`: the automaton behind structured output, asked without a model.
#pragma once

#include <string>
#include <vector>

namespace serval {

std::string grammar_help();
// Prints for each line of the instances `accepted` or `rejected`, or once `refused: KEYWORD`; the exit code is 1 when
// it is refused.
int run_grammar(const std::vector<std::string>& arguments);

}  // namespace serval
