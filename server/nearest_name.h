// The name somebody probably meant.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace serval {

// Of `known`, the name that is reached from `given` by the fewest insertions, deletions and replacements of a
// character; empty when that takes more than two and more than a third of its length. Ignores case.
std::string nearest_name(std::string_view given, const std::vector<std::string>& known);

}  // namespace serval
