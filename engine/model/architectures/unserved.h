// Architectures that people try and that are not served, each with the reason: a table, for the sentence at the start and
// for docs/models.md.
#pragma once

#include <span>
#include <string_view>

namespace serval {

struct Unserved {
  std::string_view name;
  std::string_view model_type;
  std::string_view why;  // goes on after "is not supported: "
};

std::span<const Unserved> unserved_architectures();

}  // namespace serval
