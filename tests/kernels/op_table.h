// One table of op cases for every backend: each op of kernels/backend.h against its definition in double,
// over odd sizes, ragged batches and both ends of a context, in whatever numbers the backend computes with.
// The same table runs on the CPU's instruction sets, on the emulated CUDA device and on a real one.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace serval::testing {

// How far a result may be from the exact one: rounding the inputs aside (the reference reads what the backend
// stored), relative to the size of the terms that were added.
struct OpPrecision {
  double relative = 0;
};
// For results that were rounded to this type once, after sums in f32.
OpPrecision precision_of(DType activation);

struct OpCase {
  std::string name;
  std::function<void(Backend&, WeightFormat weights)> run;  // reports through GoogleTest
};
const std::vector<OpCase>& op_table();

// Of the steps that the cases need.
StepLimits op_table_limits();

}  // namespace serval::testing
