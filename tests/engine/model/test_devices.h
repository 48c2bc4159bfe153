// The backends the model is tested on, by name.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "tests/engine/model/plain_backend.h"

namespace serval::testing {

// Under a sanitizer one instruction set: they differ in the rows of kernels/cpu alone, which kernels_test runs on all.
inline std::vector<std::string> test_devices() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return {"avx2"};
#endif
  return {"plain", "generic", "avx2", "avx512", "avx512bf16", "avx512amx"};
}

// "plain", or an instruction set of the CPU backend. Throws std::runtime_error when the processor lacks it.
inline std::unique_ptr<Backend> make_test_backend(const std::string& name) {
  if (name == "plain") return make_plain_backend();
  return make_backend({.num_threads = 2, .isa = name, .pin_threads = false});
}

// Largest |log-probability difference| to a float32 reference that a device may show. With the bf16 dot
// products the activations are rounded to 8 bits of precision before every product with a bf16 weight;
// everywhere else the arithmetic is f32 or better.
inline double tolerance_of(const std::string& device, DType weights) {
  return (device == "avx512bf16" || device == "avx512amx") && weights == DType::kBF16 ? 0.125 : 1e-3;
}

}  // namespace serval::testing
