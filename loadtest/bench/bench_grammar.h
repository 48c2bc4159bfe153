// `serval bench grammar`: what the mask of a token costs under a grammar, for the vocabulary of a model's folder.
#pragma once

#include <filesystem>
#include <iosfwd>

namespace serval {

// Walks texts token by token under their schemas, a first time and again, as a second request finds what the first
// has left. Prints medians and tails in microseconds of one thread; returns the exit code.
int bench_grammar(const std::filesystem::path& model, std::ostream& out);

}  // namespace serval
