// How requests of this dialect are read.
#pragma once

#include <functional>

namespace serval {

struct RequestOptions {
  bool strict = false;                        // refuse fields that are not known, instead of ignoring them
  std::function<void(int count)> on_ignored;  // told how many of a good request were
};

}  // namespace serval
