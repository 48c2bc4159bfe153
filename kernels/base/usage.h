// What is wrong with a command line, and the name somebody probably meant.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace serval {

// The command line cannot be understood, as against a value that cannot be obeyed: another exit code.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Of `known`, the name that is reached from `given` by the fewest insertions, deletions and replacements of a
// character; empty when that takes more than two and more than a third of its length. Ignores case.
std::string nearest_name(std::string_view given, const std::vector<std::string>& known);

// " (did you mean NAME?)"; nothing for an empty name.
std::string did_you_mean(const std::string& name);

}  // namespace serval
