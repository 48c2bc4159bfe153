// A Backend of plain loops in double precision, every op as its definition reads: the forward pass is judged
// with it apart from any real kernel. Slow, single-threaded, weights unpacked to f32, KV in f32 whatever is
// asked. No sampling.
#pragma once

#include <memory>

#include "kernels/backend.h"

namespace serval::testing {

std::unique_ptr<Backend> make_plain_backend();

}  // namespace serval::testing
