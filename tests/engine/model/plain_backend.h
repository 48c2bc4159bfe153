// A Backend of plain loops in double precision, every op as its definition reads: the forward pass is judged
// with it apart from any real kernel. Slow, single-threaded, weights unpacked to f32, KV in f32 whatever is
// asked. No sampling.
#pragma once

#include <memory>
#include <optional>

#include "kernels/backend.h"

namespace serval::testing {

// lacking, without: a format and an op that it says it has no kernels for.
std::unique_ptr<Backend> make_plain_backend(std::optional<WeightFormat> lacking = {},
                                            std::optional<RareOp> without = {});

}  // namespace serval::testing
