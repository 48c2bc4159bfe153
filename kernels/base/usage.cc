#include "kernels/base/usage.h"

#include <algorithm>
#include <cctype>
#include <numeric>

namespace serval {
namespace {

bool same_letter(char a, char b) {
  return std::tolower(static_cast<unsigned char>(a)) == std::tolower(static_cast<unsigned char>(b));
}

// Levenshtein's, a row at a time.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0]++;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + !same_letter(a[i], b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

}  // namespace

std::string nearest_name(std::string_view given, const std::vector<std::string>& known) {
  constexpr size_t kMaxBytes = 64;  // nobody misspells that much
  if (given.size() > kMaxBytes) return "";
  std::string nearest;
  size_t least = std::max<size_t>(2, given.size() / 3) + 1;
  for (const std::string& name : known) {
    const size_t steps = distance(given, name);
    if (steps >= least) continue;
    least = steps;
    nearest = name;
  }
  return nearest;
}

std::string did_you_mean(const std::string& name) {
  return name.empty() ? "" : " (did you mean " + name + "?)";
}

}  // namespace serval
