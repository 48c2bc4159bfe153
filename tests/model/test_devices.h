// The backends the model is tested on, by name.
#pragma once

#include <memory>
#include <string>

#include "kernels/backend.h"
#include "tests/model/plain_backend.h"

namespace serval::testing {

// "plain", or an instruction set of the CPU backend. Throws std::runtime_error when the processor lacks it.
inline std::unique_ptr<Backend> make_test_backend(const std::string& name) {
  if (name == "plain") return make_plain_backend();
  return make_backend({.num_threads = 2, .isa = name, .pin_threads = false});
}

}  // namespace serval::testing
